"""mlc-llm's engine answers in the image for arm64, with the model that it carries, and computes what NumPy does."""

from __future__ import annotations

from pathlib import Path

import pytest
from unpacked_image import run, unpacked_root  # noqa: F401  # a fixture


def test_smoke(root: Path) -> None:
    done = run(root, "/usr/local/bin/smoke")
    assert done.returncode == 0, done
    assert "mlc-llm answers" in done.stdout, done


@pytest.mark.parametrize(
    ("file", "tests"),
    [
        (
            "test_engine.py",
            "test_a_chat_is_answered or test_usage_counts_tokens or test_a_stream_is_the_answer_in_pieces",
        ),
        ("test_bad_models.py", "test_a_library_for_a_newer_cpu_is_refused_in_one_line or test_the_good_model_passes"),
        ("test_logits.py", ""),
    ],
)
def test_its_own_tests_pass(root: Path, file: str, tests: str) -> None:
    options = ["-k", tests] if tests else []
    done = run(root, "/usr/local/bin/pytest", "-q", f"/tests/mlc_llm/{file}", *options)
    assert done.returncode == 0, done.stdout + done.stderr
    assert " passed" in done.stdout and " skipped" not in done.stdout, done.stdout
