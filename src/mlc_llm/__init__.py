"""What this build adds to mlc-llm: imported before anything else of it (../make_package.py)."""

import os

from . import pairing

pairing.check()


import tvm_ffi.registry

# Upstream's variable, for what needs no engine, a compiler of models: the classes that the library would have
# registered are unknown then.
if os.environ.get("SKIP_LOADING_MLCLLM_SO", "0") != "0":
    tvm_ffi.registry._SKIP_UNKNOWN_OBJECTS = True

from . import compatibility, engine_watch, health

compatibility.install()
engine_watch.install()
health.install()
