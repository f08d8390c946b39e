"""Rules for tests.

* `pytest_test` runs pytest.
* `workspace_test` tests the sources themselves.
* `second_bazel_test` starts its own Bazel.
* `collect_gate` says which tests gate publication.
"""

load("@rules_python//python:defs.bzl", "py_test")
load("//release:defs.bzl", "gating_tests")
load("//tests/private:gating.bzl", "choose")
load("//toolchains/python:defs.bzl", "ARM64_INTERPRETER", "PYTHONS")

_RUNNER = Label("//tests/private:run_pytest.py")

# Idle workers of TVM's thread pool and of OpenMP spin, and on a busy machine they take cores from each other.
# TVM reads TVM_NUM_THREADS, then OMP_NUM_THREADS (src/runtime/threading_backend.cc); OpenMP and NumPy's OpenBLAS read OMP_NUM_THREADS.
_ONE_THREAD = {
    "OMP_NUM_THREADS": "1",
    "TVM_NUM_THREADS": "1",
}

def pytest_test(
        name,
        srcs,
        environments = ["//wheels/tvm:installed", "//wheels:dependencies", "//wheels:test_dependencies"],
        data = [],
        env = {},
        gate = False,
        tags = [],
        timeout = "long",
        allow_skips = False,
        python = "",
        **kwargs):
    """A test that runs pytest on its test_*.py sources.

    It fails if pytest fails, if a file holds no test, or if a test is skipped or expected to fail.
    `--test_filter=EXPRESSION` is pytest's `-k`; `shard_count` splits the tests of a target.

    Example:

        pytest_test(
            name = "errors",
            size = "small",
            srcs = ["test_errors.py"],
            gate = True,
        )

    Args:
      name: name of the test.
      srcs: Python files. Those named test_*.py are the tests, which may import the others.
      environments: trees of installed packages (`python_environment` in //wheels:defs.bzl); the first wins.
      data: further files that the tests read.
      env: environment variables. By default TVM and OpenMP use one thread; see `_ONE_THREAD`.
      gate: whether this test gates publication; see `collect_gate`.
      tags: further tags.
      timeout: stops a hanging test. The default, 15 minutes, suits a test that takes up to 90 seconds alone on two cores; use "eternal" for a
        longer one. `size` says how much memory and CPU the test uses.
      allow_skips: whether a skipped test counts as passed. If you set it, say why.
      python: another CPython to run on: a key of PYTHONS in //toolchains/python, or "arm64", which is emulated on x86-64. Sources and environments must
        suit it.
      **kwargs: attributes of py_test: size, deps, shard_count, ...
    """
    tests = [src for src in srcs if src.replace(":", "/").split("/")[-1].startswith("test_")]
    if not tests:
        fail("{}: no file named test_*.py in srcs".format(name))
    pythons = [ARM64_INTERPRETER if python == "arm64" else PYTHONS[python]["interpreter"]] if python else []
    py_test(
        name = name,
        srcs = srcs + [_RUNNER],
        main = _RUNNER,
        args = (
            ["--environment=$(rootpath {})".format(label) for label in environments] +
            ["--python=$(rootpath {})".format(label) for label in pythons] +
            (["--allow_skips"] if allow_skips else []) +
            ["$(rootpath {})".format(test) for test in tests]
        ),
        data = environments + data + pythons,
        env = _ONE_THREAD | env,
        tags = tags + (["gate"] if gate else []),
        timeout = timeout,
        **kwargs
    )

def workspace_test(name, **kwargs):
    """A `pytest_test` of the sources themselves: it reads files of the whole workspace, which are no inputs of it.

    $WORKSPACE_FILE is a file in the workspace's root. Such a test runs outside of the sandbox, and its result is never cached, so it also needs an
    entry in EXCEPTIONS (tests/proofs/hermetic/rules.py).

    Example:

        workspace_test(
            name = "floors",
            srcs = ["test_floors.py"],
        )

    Args:
      name: name of the test.
      **kwargs: other attributes of `pytest_test`.
    """
    workspace_file = Label("//:MODULE.bazel")
    pytest_test(
        name = name,
        size = "small",
        data = [workspace_file],
        env = {"WORKSPACE_FILE": "$(rootpath {})".format(workspace_file)},
        environments = ["//wheels:test_dependencies"],
        tags = [
            "external",
            "local",
        ],
        **kwargs
    )

def collect_gate(name = "gate", ungated = {}, visibility = ["//tests:__subpackages__"]):
    """Collects the tests that gate publication, of this package and those below it. Every BUILD file under tests/ ends with it.

    It collects tests with `gate = True` unless this build cannot build them (target_compatible_with). Loading fails if a test has neither
    `gate` nor a reason in `ungated`, or if a file test_*.py belongs to no test. Tests tagged `manual` need no reason.

    Example:

        collect_gate(ungated = {"They test commands that are not published.": ["load_and_run", "push"]})

    Args:
      name: name of the target, for //tests:gate to find.
      ungated: why tests do not gate: a string for all tests of the package, or a dict of reason → names of tests.
      visibility: the usual attribute.
    """
    rules = [
        {
            "compatible": not ("target_compatible_with" in rule and rule["target_compatible_with"]),
            "kind": rule["kind"],
            "name": rule_name,
            "srcs": rule["srcs"] if "srcs" in rule and rule["kind"].endswith("_test") else [],
            "tags": rule["tags"] if "tags" in rule else [],
        }
        for rule_name, rule in native.existing_rules().items()
    ]
    gating, errors = choose(rules, native.glob(["test_*.py"], allow_empty = True), ungated)
    if errors:
        fail("//{}: {}".format(native.package_name(), "; ".join(errors)))
    below = native.subpackages(include = ["**"], allow_empty = True)
    gating_tests(
        name = name,
        testonly = True,
        tests = [":" + test for test in gating] + ["//{}/{}:gate".format(native.package_name(), package) for package in below],
        visibility = visibility,
    )

def second_bazel_test(name, srcs, args = [], data = [], **kwargs):
    """A test that starts its own Bazel on a copy of the workspace (release/private/reproduce/second_workspace.py).

    It takes minutes, so `//tests/...` leaves it out and you run it by name, alone. Its first argument is --workspace_file, a file in the
    workspace's root; tests/proofs/proof.py parses it.

    Example:

        second_bazel_test(
            name = "airgap",
            size = "enormous",
            srcs = ["airgap.py"],
            env = LIKE_THIS_BUILD,
        )

    Args:
      name: name of the test.
      srcs: Python files; the program is <name>.py.
      args: further arguments.
      data: further files that it reads.
      **kwargs: attributes of py_test: size, env, deps, ...
    """
    workspace_file = Label("//:MODULE.bazel")
    py_test(
        name = name,
        srcs = srcs,
        args = ["--workspace_file=$(rootpath {})".format(workspace_file)] + args,
        data = [workspace_file] + data,
        # The launcher and Bazel find their downloads through these.
        env_inherit = [
            "HOME",
            "MLC_BAZEL_CACHE",
            "MLC_PROFILE",
            "XDG_CACHE_HOME",
        ],
        # By name: formatters sort `srcs`, and a module without a program passes.
        main = name + ".py",
        tags = [
            "exclusive",
            # It reads the whole workspace, which is not among its inputs: never reuse a result.
            "external",
            # The second Bazel has its own sandbox and needs the network.
            "local",
            "manual",
            "requires-network",
        ],
        **kwargs
    )
