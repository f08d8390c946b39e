"""The rules behind //release:defs.bzl%test_gate: tests as build actions, and a stamp with the digests they passed on."""

load(":policy.bzl", "EVERY_IMAGE", "execution_requirements", "missing_parts", "untested")

GatingTestsInfo = provider(
    doc = "Tests that gate a publication.",
    fields = {"tests": "depset of structs, one for each test: see `_describe`."},
)

_TestInfo = provider(
    doc = "Attributes of a test that its other providers lack.",
    fields = {
        "arguments": "Its arguments, with locations expanded.",
        "tags": "Its tags.",
    },
)

def _test_aspect_impl(_target, ctx):
    files = [file for attribute in ["data", "srcs"] for file in getattr(ctx.rule.attr, attribute, [])]
    return [_TestInfo(
        arguments = [ctx.expand_location(argument, files) for argument in getattr(ctx.rule.attr, "args", [])],
        tags = ctx.rule.attr.tags,
    )]

_test_aspect = aspect(
    implementation = _test_aspect_impl,
    doc = "Reads attributes of a test that its providers lack.",
)

# The attribute `tests` of both rules.
_TESTS = attr.label_list(
    mandatory = True,
    aspects = [_test_aspect],
    providers = [[RunEnvironmentInfo], [GatingTestsInfo]],
    doc = "py_test targets that report how many test cases ran (pytest_test, or unittest's main), and `gating_tests`.",
)

def _describe(ctx, test):
    """Everything a gate needs to run a test."""
    if not test[DefaultInfo].files_to_run.runfiles_manifest:
        fail("{}: {} is not a runnable test".format(ctx.label, test.label))
    return struct(
        arguments = tuple(test[_TestInfo].arguments),
        environment = tuple(sorted(test[RunEnvironmentInfo].environment.items())),
        files_to_run = test[DefaultInfo].files_to_run,
        label = test.label,
        runfiles = test[DefaultInfo].default_runfiles.files,
        tags = tuple(test[_TestInfo].tags),
    )

def _collect(ctx):
    """The tests of the attribute `tests`, directly or through `gating_tests`, as a depset."""
    return depset(
        [_describe(ctx, test) for test in ctx.attr.tests if GatingTestsInfo not in test],
        transitive = [test[GatingTestsInfo].tests for test in ctx.attr.tests if GatingTestsInfo in test],
    )

def _gating_tests_impl(ctx):
    return [GatingTestsInfo(tests = _collect(ctx)), DefaultInfo()]

gating_tests = rule(
    implementation = _gating_tests_impl,
    doc = """Groups tests, so that a `test_gate` takes them as one target. Builds and runs nothing itself.

Example:

    gating_tests(
        name = "gate",
        testonly = True,
        tests = [":contents", "//tests/images:gate"],
    )
""",
    attrs = {"tests": _TESTS},
)

def _run(ctx, test):
    """Registers the action that runs one test. Returns the file with its result, which exists only if the test passed."""
    result = ctx.actions.declare_file("{}/{}/{}.json".format(ctx.label.name, test.label.package, test.label.name))
    label = "//{}:{}".format(test.label.package, test.label.name)
    arguments = ctx.actions.args()
    arguments.add("--test", test.files_to_run.executable)
    arguments.add("--label", label)
    arguments.add("--output", result)
    for name, value in test.environment:
        arguments.add("--env={}={}".format(name, value))
    arguments.add("--")
    arguments.add_all(test.arguments)
    ctx.actions.run(
        executable = ctx.executable._run_test,
        arguments = [arguments],
        tools = [test.files_to_run],
        outputs = [result],
        mnemonic = "GateTest",
        progress_message = "Testing {} before publishing".format(label),
        execution_requirements = execution_requirements(test.tags, ctx.attr.stamped),
        use_default_shell_env = True,
    )
    return result

def _test_gate_impl(ctx):
    if ctx.attr.stamped:
        missing = missing_parts(ctx.attr.required, [artifact.label.package for artifact in ctx.attr.images.keys() + ctx.attr.wheels])
        if missing:
            fail("{}: {}".format(ctx.label, missing))

    # Sorted by label: the stamp must not depend on the order in which packages refer to each other.
    tests = sorted(_collect(ctx).to_list(), key = lambda test: str(test.label))
    images = [(name, file) for target, name in ctx.attr.images.items() for file in target[DefaultInfo].files.to_list()]
    artifacts = [file for _, file in images] + ctx.files.wheels
    problem = untested(artifacts, ctx.files.single_images, [(test.tags, test.runfiles.to_list()) for test in tests])
    if problem:
        fail("{}: {}".format(ctx.label, problem))
    results = [_run(ctx, test) for test in tests]
    stamp = ctx.actions.declare_file(ctx.label.name + ".json")
    arguments = ctx.actions.args()
    arguments.add("--output", stamp)
    arguments.add_all(results, before_each = "--result")
    for name, file in images:
        arguments.add("--image", "{}={}".format(name, file.path))
    arguments.add_all(ctx.files.wheels, before_each = "--wheel", expand_directories = False)
    ctx.actions.run(
        executable = ctx.executable._write_stamp,
        arguments = [arguments],
        inputs = results + artifacts,
        outputs = [stamp],
        mnemonic = "GateStamp",
        execution_requirements = execution_requirements([], ctx.attr.stamped),
        progress_message = "Recording what the tests passed on",
    )
    return [DefaultInfo(files = depset([stamp]), runfiles = ctx.runfiles([stamp]))]

_test_gate = rule(
    implementation = _test_gate_impl,
    doc = "Runs tests as build actions; use the macro `test_gate`.",
    attrs = {
        "images": attr.label_keyed_string_dict(
            allow_files = True,
            doc = "OCI layouts, and what each is published as. The runfiles of at least one test must contain the very same file.",
        ),
        "single_images": attr.label_list(
            allow_files = True,
            doc = "The images in the layouts. The runfiles of at least one test that is not tagged " + EVERY_IMAGE + " must contain the very same file.",
        ),
        "required": attr.string_list(doc = "Packages of the artifacts that a stamped build must have."),
        "stamped": attr.bool(doc = "Whether this is a release (--config=release)."),
        "tests": _TESTS,
        "wheels": attr.label_list(allow_files = True, doc = "Wheels. The same goes for them."),
        "_run_test": attr.label(default = "//release/private:run_test", executable = True, cfg = "exec"),
        "_write_stamp": attr.label(default = "//release/private:write_stamp", executable = True, cfg = "exec"),
    },
)

def test_gate(name, images, wheels, tests, required = [], single_images = [], **kwargs):
    """Runs tests as build actions on what is to be published, and records the digests that they passed on.

    While one of the tests fails, nothing that depends on the gate can be built or run. No flag skips it: the tests are not Bazel's to leave
    out but part of the graph. In a release (--config=release) no result comes from a disk or remote cache. The output, `<name>.json`, has
    `artifacts` (name → kind and digest) and `tests` (label and number of test cases).

    Example:

        test_gate(
            name = "gate",
            images = {"tvm_runtime": "//images/tvm_runtime:index"},
            required = ["wheels/tvm", "images/tvm_runtime"],
            tests = ["//tests:gate"],
            wheels = ["//wheels/tvm"],
        )

    Args:
        name: the target.
        images: what it is published as → an OCI layout. Each must be among the runfiles of one of the tests, as the very same file.
        wheels: the same goes for them.
        tests: `py_test` targets that report how many test cases ran, and `gating_tests`.
        required: packages of the artifacts that a release must have; it fails without them.
        single_images: the images that the layouts consist of. Each must have a test that does not just take every image (tag "every-image").
        **kwargs: common attributes.
    """
    _test_gate(
        name = name,
        images = {label: published_as for published_as, label in images.items()},
        required = required,
        single_images = single_images,
        stamped = select({
            "//oci:stamped": True,
            "//conditions:default": False,
        }),
        tests = tests,
        wheels = wheels,
        **kwargs
    )
