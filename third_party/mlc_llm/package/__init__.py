"""What this build adds to mlc-llm: imported before anything else of it (../make_package.py)."""

from . import pairing

pairing.check()

# ruff: noqa: E402 - these import TVM, which must be the right one.
from . import compatibility, engine_watch, health

compatibility.install()
engine_watch.install()
health.install()
