"""The image tvm_runtime for arm64 works in its own root, with every program that it starts."""

from __future__ import annotations

import os
from pathlib import Path

from unpacked_image import IMAGE, run, unpacked_root  # noqa: F401  # a fixture


def test_programs_that_start_programs_run(root: Path) -> None:
    script = "import subprocess, platform; print(platform.machine(), subprocess.check_output(['uname', '-m']).decode())"
    done = run(
        root, "/bin/bash", "-c", f'python3 -c "{script}" && ls /usr/bin/python3 && awk "BEGIN {{ print 6 * 7 }}"'
    )
    assert done.stdout.split() == ["aarch64", "aarch64", "/usr/bin/python3", "42"], done


def test_smoke(root: Path) -> None:
    done = run(root, "/usr/local/bin/smoke")
    assert done.returncode == 0, done
    assert "equals NumPy's" in done.stdout and "libtvm_compiler.so" in done.stdout, done


def test_the_entry_point_starts_a_command(root: Path) -> None:
    tini, *options, entry_point = IMAGE.config["config"]["Entrypoint"]
    assert run(root, tini, "--version").stdout.startswith("tini version")
    assert options == ["-s", "--"]  # QEMU 7.2 does not know the system call behind -s, PR_SET_CHILD_SUBREAPER.
    done = run(root, entry_point, "python3", "-c", "import tvm; print(tvm.__version__)")
    assert done.stdout.strip() == os.environ["TVM_VERSION"], done


def test_build_repacks_the_wheels_that_are_for_arm64(root: Path) -> None:
    done = run(root, "/usr/local/bin/build")
    assert done.returncode == 0, done
    made = sorted(path.name for path in (root / "src/mlc-llm/python/dist").iterdir())
    assert made and all(name.endswith("_aarch64.whl") for name in made), made
