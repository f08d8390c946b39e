"""Rules for wheels: `wheel` builds one, `python_environment` installs several, `install_wheels` some of their files, `wheel_index`
puts some into an index for pip. Also lists the wheels that mlc-llm's engine needs."""

load("//platforms:defs.bzl", "by_cpu")
load("//wheels/private:finished_wheel.bzl", _WheelInfo = "WheelInfo")
load("//wheels/private:index.bzl", _wheel_index = "wheel_index")
load("//wheels/private:made_of.bzl", _unavailable_inputs = "unavailable_inputs")
load("//wheels/private:python_environment.bzl", _PythonEnvironmentInfo = "PythonEnvironmentInfo", _install_wheels = "install_wheels", _python_environment = "python_environment")
load("//wheels/private:wheel.bzl", _made_of_target = "made_of_target", _wheel = "wheel")

PythonEnvironmentInfo = _PythonEnvironmentInfo
WheelInfo = _WheelInfo
install_wheels = _install_wheels
made_of_target = _made_of_target
python_environment = _python_environment
unavailable_inputs = _unavailable_inputs
wheel = _wheel
wheel_index = _wheel_index

# The newest symbols used are in glibc 2.27 and GCC 8's libstdc++. tests/wheels checks that with auditwheel (README.md, "Tag").
PLATFORM = by_cpu("manylinux_2_28_x86_64", "manylinux_2_28_aarch64")

# The distributions of PyPI that mlc-llm's engine and server import.
MLC_LLM_DEPENDENCIES = [
    "annotated_doc",
    "annotated_types",
    "anyio",
    "certifi",
    "charset_normalizer",
    "click",
    "fastapi",
    "h11",
    "idna",
    "opentelemetry_api",
    "prometheus_client",
    "psutil",
    "pydantic",
    "pydantic_core",
    "requests",
    "safetensors",
    "shortuuid",
    "starlette",
    "tqdm",
    "typing_inspection",
    "urllib3",
    "uvicorn",
]
