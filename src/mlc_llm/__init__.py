"""Additions to mlc-llm, imported before all other modules of it (third_party/mlc_llm/make_package.py)."""

import os

from . import home, pairing

pairing.check()
home.check()


import tvm_ffi.registry

# Upstream's variable for programs that need no engine, such as compiling models. The classes that the library would
# register are then unknown.
if os.environ.get("SKIP_LOADING_MLCLLM_SO", "0") != "0":
    tvm_ffi.registry._SKIP_UNKNOWN_OBJECTS = True

from . import (
    access,
    answer_text,
    checkpoint_config,
    compatibility,
    compile_here,
    convert,
    cpu_kernels,
    cpu_rotation,
    engine_watch,
    health,
    hub,
    lifecycle,
    metrics,
    openai_api,
    request_check,
    rotation,
    startup,
)

compatibility.install()
checkpoint_config.install()
compile_here.install()
convert.install()
cpu_kernels.install()
cpu_rotation.install()
rotation.install()
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
