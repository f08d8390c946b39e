"""pytest as a Bazel test: `pytest_test`."""

load("@rules_python//python:defs.bzl", "py_test")

_RUNNER = Label("//tests/private:run_pytest.py")

def pytest_test(
        name,
        srcs,
        environments = ["//wheels:tvm", "//wheels:dependencies", "//wheels:test_dependencies"],
        data = [],
        allow_skips = False,
        **kwargs):
    """A test that runs pytest on its test_*.py sources.

    It fails where pytest fails, and also if a file holds no test, or a test is skipped or expected to fail.
    `--test_filter=EXPRESSION` is pytest's `-k`; `shard_count` splits the tests of a target.

    Example:

        pytest_test(
            name = "errors",
            size = "small",
            srcs = ["test_errors.py"],
        )

    Args:
      name: name of the test.
      srcs: Python files; those named test_*.py are the tests, the others are there to be imported by them.
      environments: trees of installed packages (`python_environment` in //wheels:defs.bzl), the first wins.
      data: further files that the tests read.
      allow_skips: whether a skipped test counts as passed. Say why where you set it.
      **kwargs: what py_test takes: size, tags, env, deps, shard_count, ...
    """
    tests = [src for src in srcs if src.replace(":", "/").split("/")[-1].startswith("test_")]
    if not tests:
        fail("{}: no file named test_*.py in srcs".format(name))
    py_test(
        name = name,
        srcs = srcs + [_RUNNER],
        main = _RUNNER,
        args = (
            ["--environment=$(rootpath {})".format(label) for label in environments] +
            (["--allow_skips"] if allow_skips else []) +
            ["$(rootpath {})".format(test) for test in tests]
        ),
        data = environments + data,
        **kwargs
    )
