"""The emulator has all instructions that kernels are chosen by, so that the tests of kernels run with each."""

from __future__ import annotations

import cpu_kernels


def test_all_are_available() -> None:
    assert cpu_kernels.AVAILABLE == ["armv8.2-a+dotprod+i8mm", "armv8.2-a+dotprod", "armv8-a"]
