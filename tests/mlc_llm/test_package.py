"""`import mlc_llm` loads only this build's libraries, and needs only the distributions that its wheel requires."""

from __future__ import annotations

import base64
import hashlib
import importlib.metadata
import json
import os
import platform
import re
import shutil
import signal
import subprocess
import sys
from pathlib import Path

import pytest
import tvm_ffi
from mlc_llm._mlc_bazel import versions
from packaging.requirements import Requirement

import mlc_llm
import tvm

# Modules that need more than the required distributions: module → the missing import, and our extra that provides it.
# None: neither upstream nor we declare it.
EXTRAS: dict[str, tuple[str, str | None]] = {
    "mlc_llm.bench.__main__": ("transformers", "bench"),
    "mlc_llm.bench.api_endpoint": ("pandas", "bench"),
    "mlc_llm.bench.dataset": ("pandas", "bench"),
    "mlc_llm.bench.request_processor": ("transformers", "bench"),
    "mlc_llm.bench.request_record": ("pandas", "bench"),
    "mlc_llm.cli.chat": ("prompt_toolkit", "chat"),
    "mlc_llm.interface.chat": ("prompt_toolkit", "chat"),
    "mlc_llm.cli.delivery": ("huggingface_hub", None),
    "mlc_llm.cli.router": ("aiohttp", "router"),
    "mlc_llm.interface.router": ("aiohttp", "router"),
    "mlc_llm.router": ("aiohttp", "router"),
    "mlc_llm.router.router": ("aiohttp", "router"),
    "mlc_llm.contrib.embeddings.openai": ("langchain", None),
    "mlc_llm.testing": ("pytest", None),
    "mlc_llm.testing.debug_chat": ("pytest", None),
    "mlc_llm.testing.debug_compare": ("pytest", None),
    "mlc_llm.testing.pytest_utils": ("pytest", None),
}

# Imports that only extras may provide: they are large, or for one command only.
HEAVY = [
    "datasets",
    "flashinfer",
    "openai",
    "pandas",
    "prompt_toolkit",
    "safetensors",
    "tiktoken",
    "torch",
    "transformers",
]

# Python with the compiler does not load the library for C++ programs and a TVM without compiler.
LIBRARIES = ["libmlc_llm_module.so", "libtvm_ffi.so", "libtvm_runtime.so", "libtvm_runtime_extra.so"]


def run(program: str, *arguments: str, check: bool = True) -> subprocess.CompletedProcess:
    """Runs a program in a fresh interpreter with the same packages."""
    # tvm.contrib.pickle_memoize looks up HOME at import, and not every sandbox has /etc/passwd.
    environment = {
        "PYTHONPATH": os.pathsep.join(sys.path),
        "PYTHONDONTWRITEBYTECODE": "1",
        "TVM_BIND_THREADS": "0",
        "HOME": os.environ["HOME"],
    }
    command = [sys.executable, "-c", program, *arguments]
    done = subprocess.run(command, capture_output=True, text=True, env=environment)
    assert not check or done.returncode == 0, done.stderr
    return done


def canonical(name: str) -> str:
    return re.sub(r"[-_.]+", "-", name).lower()


def required(name: str) -> set[str]:
    """A distribution and all that it requires, without extras: what pip installs for it."""
    found: set[str] = set()
    todo = [(canonical(name), "")]
    seen: set[tuple[str, str]] = set()
    while todo:
        distribution, extra = entry = todo.pop()
        if entry in seen:
            continue
        seen.add(entry)
        found.add(distribution)
        for line in importlib.metadata.requires(distribution) or []:
            requirement = Requirement(line)
            if requirement.marker is None or requirement.marker.evaluate({"extra": extra}):
                todo += [(canonical(requirement.name), each) for each in ("", *requirement.extras)]
    return found


def mapped(maps: str) -> set[str]:
    """The files in the text of /proc/self/maps."""
    return {
        fields[5]
        for line in maps.splitlines()
        if len(fields := line.split(maxsplit=5)) == 6 and fields[5].startswith("/")
    }


def modules() -> list[str]:
    """Every module in the installed wheel, from its list of files, because some folders have no __init__.py."""
    files = [Path(file) for file in importlib.metadata.files("mlc-llm") or [] if file.suffix == ".py"]
    names = [".".join(file.with_suffix("").parts).removesuffix(".__init__") for file in files]
    # Importing mlc_llm.__main__ runs it.
    return sorted(name for name in names if name != "mlc_llm.__main__")


# Imports mlc_llm and then the modules in its arguments, with only the allowed top-level modules available, and reports.
IMPORT_ALL = """
import importlib, json, sys

allowed, *names = sys.argv[1:]
allowed = set(allowed.split())

class OnlyRequired:
    @staticmethod
    def find_spec(name, path=None, target=None):
        top = name.partition(".")[0]
        if path is None and top not in allowed:
            raise ModuleNotFoundError(f"No module named {name!r}", name=name)

for name in [name for name in sys.modules if name.partition(".")[0] not in allowed]:
    del sys.modules[name]
sys.meta_path.insert(0, OnlyRequired)
import mlc_llm
loaded = sorted({name.partition(".")[0] for name in sys.modules})
missing = {}
for name in names:
    try:
        importlib.import_module(name)
    except ModuleNotFoundError as error:
        missing[name] = error.name
later = sorted({name.partition(".")[0] for name in sys.modules})
print(json.dumps({"loaded": loaded, "later": later, "missing": missing}))
"""


@pytest.fixture(scope="module")
def imported() -> dict:
    """Imports mlc_llm and then all its modules, with only the standard library and the required distributions."""
    closure = required("mlc-llm")
    provided = {
        module
        for module, distributions in importlib.metadata.packages_distributions().items()
        if {canonical(each) for each in distributions} <= closure
    }
    allowed = provided | set(sys.stdlib_module_names) | {"__main__", f"_sysconfigdata__{platform.machine()}-linux-gnu"}
    return json.loads(run(IMPORT_ALL, " ".join(sorted(allowed)), *modules()).stdout.splitlines()[-1])


@pytest.fixture(scope="module")
def maps() -> set[str]:
    """What a process has mapped that has imported mlc_llm and nothing else."""
    return mapped(run("import mlc_llm; print(open('/proc/self/maps').read())").stdout)


def test_version_is_the_one_of_the_distribution() -> None:
    assert mlc_llm.__version__ == importlib.metadata.version("mlc-llm")
    assert re.fullmatch(r".*\+mlc.*\.b[0-9a-f]{8}", mlc_llm.__version__)


def test_tvms_own_modules_can_be_imported_after_it() -> None:
    assert run("import mlc_llm, tvm.runtime.disco; print('imported')").stdout.strip() == "imported"


def test_the_installed_tvm_is_the_one_mlc_llm_was_compiled_against() -> None:
    assert importlib.metadata.version("apache-tvm") == versions.TVM
    assert importlib.metadata.version("apache-tvm-ffi") == versions.TVM_FFI


@pytest.mark.parametrize("name", LIBRARIES)
def test_only_the_recorded_copy_of_each_library_is_loaded(maps: set[str], name: str) -> None:
    (found,) = [Path(path) for path in maps if Path(path).name.split(".so")[0] == name.removesuffix(".so")]
    distribution = {"libmlc_llm_module.so": "mlc-llm", "libtvm_ffi.so": "apache-tvm-ffi"}.get(name, "apache-tvm")
    (recorded,) = [file for file in importlib.metadata.files(distribution) or [] if file.name == name]
    assert Path(str(recorded.locate())).resolve() == found.resolve()
    digest = base64.urlsafe_b64encode(hashlib.sha256(found.read_bytes()).digest()).rstrip(b"=").decode()
    assert recorded.hash and (recorded.hash.mode, recorded.hash.value) == ("sha256", digest)


def test_no_other_library_of_these_projects_is_loaded(maps: set[str]) -> None:
    """mlc-llm links them statically. Finds a second copy from the system or from Python."""
    projects = re.compile(r"mlc|tvm|tokenizers|sentencepiece|xgrammar|protobuf|msgpack|onig", re.IGNORECASE)
    found = {Path(path).name for path in maps if re.search(r"\.so(\.\d+)*$", path) and projects.search(Path(path).name)}
    assert found - set(LIBRARIES) == {"libtvm_compiler.so", "libtvm_ffi_testing.so"}


@pytest.mark.parametrize(
    "symbol", ["tokenizers_new_from_str", "tokenizers_encode", "tokenizers_decode", "onig_new", "rust_eh_personality"]
)
def test_statically_linked_symbols_are_not_exported(symbol: str) -> None:
    """Python's tokenizers and sentencepiece contain other versions of the same code."""
    assert not hasattr(mlc_llm.base._LIB, symbol)


def test_import_writes_nothing() -> None:
    done = run("import mlc_llm; print(mlc_llm.__version__)")
    assert (done.stdout.strip(), done.stderr) == (mlc_llm.__version__, "")


def test_import_needs_only_what_the_wheel_requires(imported: dict) -> None:
    """The import succeeded with nothing else available; this checks that it loaded the required distributions."""
    assert {"fastapi", "numpy", "requests", "shortuuid", "tqdm", "tvm", "tvm_ffi"} <= set(imported["loaded"])
    assert not set(HEAVY) & set(imported["later"])


def test_every_required_distribution_is_used(imported: dict) -> None:
    """Some module loads each direct requirement; otherwise it should not be one."""
    providers = importlib.metadata.packages_distributions()
    used = {canonical(name) for module in imported["later"] for name in providers.get(module, [])}
    direct = {
        canonical(Requirement(line).name)
        for line in importlib.metadata.requires("mlc-llm") or []
        if not Requirement(line).marker
    }
    assert direct <= used, direct - used


def test_every_module_imports_except_those_of_extras(imported: dict) -> None:
    assert imported["missing"] == {module: missing for module, (missing, _) in EXTRAS.items()}


@pytest.mark.parametrize("extra", sorted({extra for _, extra in EXTRAS.values() if extra}))
def test_an_extra_brings_the_missing_imports_of_its_modules(extra: str) -> None:
    requirements = [Requirement(line) for line in importlib.metadata.requires("mlc-llm") or []]
    brought = {canonical(each.name) for each in requirements if each.marker and each.marker.evaluate({"extra": extra})}
    assert {canonical(missing) for missing, its_extra in EXTRAS.values() if its_extra == extra} <= brought


@pytest.mark.parametrize("order", ["mlc_llm first", "mlc_llm last"])
def test_pythons_tokenizers_and_sentencepiece_work_in_the_same_process(order: str, tmp_path: Path) -> None:
    """All three contain code of the same origin; none may call another's."""
    program = """
import io, json, sys
order, folder = sys.argv[1:]
if order == "mlc_llm first":
    import mlc_llm
import sentencepiece, tokenizers
from tokenizers import decoders, models, pre_tokenizers, trainers
if order == "mlc_llm last":
    import mlc_llm
from mlc_llm.tokenizers import Tokenizer

lines = ["one fox and two dogs", "the dog and the fox", "two foxes, one dog"] * 20
python = tokenizers.Tokenizer(models.BPE())
python.pre_tokenizer, python.decoder = pre_tokenizers.ByteLevel(add_prefix_space=False), decoders.ByteLevel()
alphabet = pre_tokenizers.ByteLevel.alphabet()
python.train_from_iterator(lines, trainers.BpeTrainer(vocab_size=300, initial_alphabet=alphabet, show_progress=False))
python.save(folder + "/tokenizer.json")
model = io.BytesIO()
sentencepiece.SentencePieceTrainer.train(
    sentence_iterator=iter(lines), model_writer=model, model_type="bpe", vocab_size=60, num_threads=1, minloglevel=2,
    hard_vocab_limit=False,
)
pieces = sentencepiece.SentencePieceProcessor(model_proto=model.getvalue())
ours = Tokenizer(folder)
text = "the two dogs \\U0001f98a and one fox"
for _ in range(3):
    assert ours.encode(text) == python.encode(text).ids
    assert ours.decode(ours.encode(text)) == python.decode(python.encode(text).ids) == text
    assert pieces.decode(pieces.encode("two dogs")) == "two dogs"
print("agree")
"""
    assert run(program, order, str(tmp_path)).stdout.splitlines()[-1] == "agree"


def test_the_library_does_not_load_without_tvm(tmp_path: Path) -> None:
    """`import tvm` loads its libraries from anywhere. Otherwise they must be in the folders next to this one's."""
    (tmp_path / "mlc_llm").mkdir()
    alone = shutil.copy(mlc_llm.base._LIB_PATH, tmp_path / "mlc_llm")
    done = run(f"import ctypes; ctypes.CDLL({str(alone)!r})", check=False)
    assert done.returncode == 1 and "libtvm_runtime.so: cannot open shared object file" in done.stderr
    assert run(f"import tvm, ctypes; print(ctypes.CDLL({str(alone)!r})._handle != 0)").stdout == "True\n"


def test_the_library_finds_a_tvm_installed_next_to_it(tmp_path: Path) -> None:
    """pip installs them like this, so a C++ program needs only the one library."""
    (tmp_path / "mlc_llm").mkdir()
    library = shutil.copy(mlc_llm.base._LIB_PATH, tmp_path / "mlc_llm")
    for package in (tvm, tvm_ffi):
        folder = Path(package.__file__).parent
        (tmp_path / folder.name).symlink_to(folder)
    program = f"import ctypes; ctypes.CDLL({str(library)!r}); print(open('/proc/self/maps').read())"
    found = {Path(path).name for path in mapped(run(program).stdout)}
    assert {"libtvm_ffi.so", "libtvm_runtime.so", "libtvm_runtime_extra.so"} <= found


def test_the_library_for_cpp_programs_loads_too() -> None:
    library = Path(mlc_llm.base._LIB_PATH).with_name("libmlc_llm.so")
    program = (
        f"import tvm, ctypes; ctypes.CDLL({str(library)!r}); print(tvm.get_global_func('mlc.tokenizers.Tokenizer'))"
    )
    assert "Function" in run(program).stdout


def test_both_libraries_in_one_process_are_refused() -> None:
    """Both register the same types and functions, and TVM refuses to register one twice. Upstream ends the process
    instead of raising an error.
    """
    library = Path(mlc_llm.base._LIB_PATH).with_name("libmlc_llm.so")
    no_core_file = "import resource; resource.setrlimit(resource.RLIMIT_CORE, (0, 0))"
    done = run(f"{no_core_file}; import mlc_llm, ctypes; ctypes.CDLL({str(library)!r})", check=False)
    assert done.returncode == -signal.SIGABRT
    # Which of them comes first depends on the order in which the library's files were linked.
    assert "mlc" in done.stderr and "already registered" in done.stderr
