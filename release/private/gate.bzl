"""The rule behind //release:defs.bzl%test_gate: tests as build actions, and a stamp of what they passed on."""

_TestInfo = provider(
    doc = "What Bazel knows of a test beside its program.",
    fields = {
        "arguments": "Its arguments, locations expanded.",
        "tags": "Its tags.",
    },
)

# What a tag of a test means for the action that runs it (Bazel's test encyclopedia, "Tag conventions").
_EXECUTION_TAGS = ["local", "no-remote", "no-sandbox", "requires-fakeroot", "requires-network"]

def _test_aspect_impl(target, ctx):
    files = [file for attribute in ["data", "srcs"] for file in getattr(ctx.rule.attr, attribute, [])]
    return [_TestInfo(
        arguments = [ctx.expand_location(argument, files) for argument in getattr(ctx.rule.attr, "args", [])],
        tags = ctx.rule.attr.tags,
    )]

_test_aspect = aspect(
    implementation = _test_aspect_impl,
    doc = "Reads attributes of a test that its providers do not carry.",
)

def _run(ctx, test):
    """Registers the action that runs one test; returns the file with its result, which a failed test does not leave."""
    result = ctx.actions.declare_file("{}/{}/{}.json".format(ctx.label.name, test.label.package, test.label.name))
    label = "//{}:{}".format(test.label.package, test.label.name)
    arguments = ctx.actions.args()
    arguments.add("--test", test[DefaultInfo].files_to_run.executable)
    arguments.add("--label", label)
    arguments.add("--output", result)
    for name, value in sorted(test[RunEnvironmentInfo].environment.items()):
        arguments.add("--env={}={}".format(name, value))
    arguments.add("--")
    arguments.add_all(test[_TestInfo].arguments)
    ctx.actions.run(
        executable = ctx.executable._run_test,
        arguments = [arguments],
        tools = [test[DefaultInfo].files_to_run],
        outputs = [result],
        mnemonic = "GateTest",
        progress_message = "Testing {} before publishing".format(label),
        execution_requirements = {tag: "" for tag in test[_TestInfo].tags if tag in _EXECUTION_TAGS},
        use_default_shell_env = True,
    )
    return result

def _test_gate_impl(ctx):
    tested = {}
    for test in ctx.attr.tests:
        if not test[DefaultInfo].files_to_run.runfiles_manifest:
            fail("{}: {} is no test that can be run".format(ctx.label, test.label))
        for file in test[DefaultInfo].default_runfiles.files.to_list():
            tested[file] = True
    artifacts = [file for artifact in ctx.attr.artifacts for file in artifact[DefaultInfo].files.to_list()]
    for file in artifacts:
        if file not in tested:
            fail("{}: none of its tests takes {} as data, so nothing would be tested of it; add one to `tests`".format(ctx.label, file.short_path))
    results = [_run(ctx, test) for test in ctx.attr.tests]
    stamp = ctx.actions.declare_file(ctx.label.name + ".json")
    arguments = ctx.actions.args()
    arguments.add("--output", stamp)
    arguments.add_all(results, before_each = "--result")
    arguments.add_all(artifacts, expand_directories = False)
    ctx.actions.run(
        executable = ctx.executable._write_stamp,
        arguments = [arguments],
        inputs = results + artifacts,
        outputs = [stamp],
        mnemonic = "GateStamp",
        progress_message = "Writing down what the tests passed on",
    )
    return [DefaultInfo(files = depset([stamp]), runfiles = ctx.runfiles([stamp]))]

test_gate = rule(
    implementation = _test_gate_impl,
    doc = """Runs tests as build actions on what is to be published, and writes down the digests that they passed on.

What depends on the gate cannot be built, and so not be run, while one of the tests fails: there is no flag that skips it, since the tests
are not Bazel's to leave out but part of the graph. The output, `<name>.json`, has `artifacts` (name → kind and digest) and
`tests` (label and number of test cases).

Example:

    test_gate(
        name = "gate",
        artifacts = ["//wheels:tvm_runtime", "//images:tvm_runtime"],
        tests = ["//tests/wheels:contents", "//tests/images:image_test"],
    )
""",
    attrs = {
        "artifacts": attr.label_list(
            mandatory = True,
            allow_files = True,
            doc = "Wheels and OCI layouts. Each must be among the runfiles of one of the tests, as the very same file.",
        ),
        "tests": attr.label_list(
            mandatory = True,
            aspects = [_test_aspect],
            providers = [RunEnvironmentInfo],
            doc = "py_test targets that report how many test cases ran (pytest_test, or unittest's main).",
        ),
        "_run_test": attr.label(default = "//release/private:run_test", executable = True, cfg = "exec"),
        "_write_stamp": attr.label(default = "//release/private:write_stamp", executable = True, cfg = "exec"),
    },
)
