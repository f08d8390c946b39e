"""What differs between platforms: `by_cpu` chooses a value, `on_platform` builds a target for another platform than the rest of the build."""

# Processors of Linux that this build makes artifacts for. The build itself runs on the first.
CPUS = ["x86_64", "arm64"]

def platform_of(cpu):
    """The platform of a processor, one of CPUS. That of x86-64 is the one that .bazelrc names, so that nothing is built twice."""
    return Label("//platforms:linux_" + cpu)

def by_cpu(x86_64, arm64):
    """One value for each processor: a select.

    Args:
        x86_64: the value on x86-64.
        arm64: the value on arm64.
    """
    return select({
        Label("//platforms:arm64"): arm64,
        "//conditions:default": x86_64,
    })

_PLATFORMS = "//command_line_option:platforms"
_HOST_PLATFORM = "//command_line_option:host_platform"

_to_platform = transition(
    implementation = lambda _settings, attr: {_PLATFORMS: str(attr.platform)},
    inputs = [],
    outputs = [_PLATFORMS],
)

# For attributes of rules: what runs during the build but is also what is built, such as the TVM that compiles models. With "exec" it would be built twice.
for_the_build = transition(
    implementation = lambda settings, _attr: {_PLATFORMS: str(settings[_HOST_PLATFORM])},
    inputs = [_HOST_PLATFORM],
    outputs = [_PLATFORMS],
)

def _on_platform_impl(ctx):
    files = {}
    for file in ctx.files.actual:
        # In runfiles a file has the same path for every platform. Its own folder keeps it apart.
        path = "{}/{}".format(ctx.label.name, file.basename)
        if path in files:
            fail("{}: expected files of different names in `actual`, found two {}".format(ctx.label, file.basename))
        files[path] = ctx.actions.declare_directory(path) if file.is_directory else ctx.actions.declare_file(path)
        ctx.actions.symlink(output = files[path], target_file = file)
    return [DefaultInfo(files = depset(files.values()), runfiles = ctx.runfiles(files.values()))]

on_platform = rule(
    implementation = _on_platform_impl,
    doc = """The files of targets, built for one platform whatever the rest of the build is for, in a folder with the name of this target.

Only the files: no runfiles of the targets. No two may have the same name.

Example:

    on_platform(
        name = "tvm_arm64",
        actual = ["//wheels/tvm"],
        platform = platform_of("arm64"),
    )
""",
    attrs = {
        "actual": attr.label_list(mandatory = True, allow_files = True, cfg = _to_platform),
        "platform": attr.label(mandatory = True, doc = "What platform_of() returns."),
        "_allowlist_function_transition": attr.label(default = "@bazel_tools//tools/allowlists/function_transition_allowlist"),
    },
)
