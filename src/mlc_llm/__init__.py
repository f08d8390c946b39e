"""Additions to mlc-llm, imported before all other modules of it (third_party/mlc_llm/make_package.py)."""

import ctypes
import importlib.util
import os
import pathlib

from . import home, pairing

pairing.check()
home.check()


import tvm_ffi.registry

# libmlc_llm needs this library, and so do TVM's sessions of several workers, which TVM leaves out where it is not
# loaded. TVM loads it with its compiler only.
_tvm = importlib.util.find_spec("tvm")
_extra = pathlib.Path(str(_tvm and _tvm.origin)).with_name("lib") / "libtvm_runtime_extra.so"
if _extra.exists():
    ctypes.CDLL(str(_extra))

import tvm.base

# mlc-llm's kernels have threads of their own. TVM's only sample there; waiting for work, they would keep a core from
# those.
os.environ.setdefault("TVM_THREAD_POOL_SPIN_COUNT", "0")

# Upstream's variable for programs that need no engine, such as compiling models. The classes that the library would
# register are then unknown.
if os.environ.get("SKIP_LOADING_MLCLLM_SO", "0") != "0":
    tvm_ffi.registry._SKIP_UNKNOWN_OBJECTS = True

if tvm.base._RUNTIME_ONLY:
    from . import runtime_only

    runtime_only.install()

# Before upstream's modules, which import its function by name.
from . import devices

devices.install()

from . import (
    access,
    answer_text,
    checkpoint_config,
    engine_watch,
    health,
    hub,
    lifecycle,
    metrics,
    openai_api,
    request_check,
    startup,
)

if not tvm.base._RUNTIME_ONLY:
    from . import compatibility, compile_here, convert, cpu_kernels, cpu_rotation, rotation

    compatibility.install()
    compile_here.install()
    convert.install()
    cpu_kernels.install()
    cpu_rotation.install()
    rotation.install()
pairing.install()
checkpoint_config.install()
hub.install()
engine_watch.install()
answer_text.install()
request_check.install()
openai_api.install()
health.install()
metrics.install()
access.install()
lifecycle.install()
startup.install()
