"""What this build adds to mlc-llm: imported before anything else of it (../make_package.py)."""

from . import pairing

pairing.check()

from . import compatibility  # noqa: E402 - imports TVM, which must be the right one

compatibility.install()
