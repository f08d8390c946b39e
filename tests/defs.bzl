"""pytest as a Bazel test: `pytest_test`; a test with a Bazel of its own: `second_bazel_test`."""

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

def second_bazel_test(name, srcs, args = [], data = [], **kwargs):
    """A test that starts a Bazel of its own on a copy of the workspace (tests/private/second_workspace.py).

    It takes minutes, so it has a command of its own and is no part of `//tests/...`; nothing runs beside it. Its first argument is
    --workspace_file, a file at the workspace's root.

    Example:

        second_bazel_test(
            name = "airgap",
            size = "enormous",
            srcs = ["airgap.py"],
            env = LIKE_THIS_BUILD,
        )

    Args:
      name: name of the test.
      srcs: Python files, the first is run.
      args: further arguments.
      data: further files that it reads.
      **kwargs: what py_test takes: size, env, deps, ...
    """
    workspace_file = Label("//:MODULE.bazel")
    py_test(
        name = name,
        srcs = srcs,
        args = ["--workspace_file=$(rootpath {})".format(workspace_file)] + args,
        data = [workspace_file] + data,
        # Where the launcher and Bazel keep what they downloaded.
        env_inherit = [
            "HOME",
            "MLC_BAZEL_CACHE",
            "MLC_PROFILE",
            "XDG_CACHE_HOME",
        ],
        main = srcs[0],
        tags = [
            "exclusive",
            # It reads the whole workspace: no result of another one is its own.
            "external",
            # Bazel has a sandbox and a network access of its own.
            "local",
            "manual",
            "requires-network",
        ],
        **kwargs
    )
