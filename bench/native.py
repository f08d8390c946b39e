"""Part `native`: mlc-llm's libraries and the runtime they link against, built by Bazel and by CMake + Ninja; see
builds.py.
"""

from __future__ import annotations

import argparse

import builds
import commands

PROJECT = builds.Project(
    what="mlc-llm's two libraries, its Rust tokenizers and the three runtime libraries",
    libraries=builds.RUNTIME.libraries
    | {f"{name}.so": f"@mlc_llm//:{name}" for name in ("libmlc_llm", "libmlc_llm_module")},
    repositories=builds.RUNTIME.repositories
    | {
        "CXX_HEADERS": "debian_cxx_headers",
        "MLC_LLM": "mlc_llm",
        "SENTENCEPIECE": "sentencepiece",
        "TOKENIZERS_CPP": "tokenizers_cpp",
        "XGRAMMAR": "xgrammar",
    },
    changed=("MLC_LLM", "cpp/serve/logit_processor.cc"),
    cargo="@tokenizers_cpp//:tokenizers_c",
)


_NOTE = """
The CMake build is ours (`bench/cmake`): upstream's needs TVM's repository and submodules, \
which no package registry has, and compiles another
runtime. Both builds include the Rust part: the same program starts cargo with the same arguments.
"""


def measure(workspace: commands.Bazel, options: argparse.Namespace) -> tuple[str, str]:
    """This part's table, and the versions of what was measured."""
    if not workspace.compatible("//wheels/mlc_llm"):
        return commands.NO_SOURCES, "nothing"
    text, versions = builds.measure(workspace, options, PROJECT)
    return text + _NOTE, versions
