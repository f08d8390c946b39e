"""Rules that finish a wheel: `finished_wheel` adds its build id, `pinned_versions` writes the versions that it pins into its Python package."""

WheelInfo = provider(
    doc = "A wheel of this build. Installing it needs no compressed copy, because wheels/finished.py reads `unversioned` and `identity` as the finished wheel.",
    fields = {
        "distribution": "The name on a package index, for example apache-tvm.",
        "identity": "File: the version with build id and the pins, JSON.",
        "unversioned": "File: the wheel as py_wheel assembled it, uncompressed, its version without build id.",
        "version": "File: the version with build id, one line.",
    },
)

def _finished_wheel_impl(ctx):
    unversioned = ctx.file.unversioned
    pins = [pin[WheelInfo] for pin in ctx.attr.pins]
    identity = ctx.actions.declare_file(ctx.label.name + ".json")
    version = ctx.actions.declare_file(ctx.label.name + ".version")
    arguments = ctx.actions.args()
    arguments.add("identify")
    arguments.add("--unversioned", unversioned)
    arguments.add_all(ctx.files.others, before_each = "--with")
    for pin in pins:
        arguments.add(pin.version, format = "--pin={}=%s".format(pin.distribution))
    arguments.add("--identity", identity)
    arguments.add("--version", version)
    ctx.actions.run(
        outputs = [identity, version],
        inputs = [unversioned] + ctx.files.others + [pin.version for pin in pins],
        executable = ctx.executable._finish_wheel,
        arguments = [arguments],
        mnemonic = "IdentifyWheel",
        progress_message = "Deriving the build id of %{label}",
    )

    # Only the action knows the name of the file, so declare its folder as the output.
    folder = ctx.actions.declare_directory(ctx.attr.folder)
    arguments = ctx.actions.args()
    arguments.add("write")
    arguments.add("--unversioned", unversioned)
    arguments.add("--identity", identity)
    arguments.add_all("--folder", [folder], expand_directories = False)
    ctx.actions.run(
        outputs = [folder],
        inputs = [unversioned, identity],
        executable = ctx.executable._finish_wheel,
        arguments = [arguments],
        mnemonic = "FinishWheel",
        progress_message = "Compressing wheel %{label}",
    )
    return [
        DefaultInfo(files = depset([folder]), runfiles = ctx.runfiles([folder])),
        OutputGroupInfo(version = depset([version])),
        WheelInfo(distribution = ctx.attr.distribution, identity = identity, unversioned = unversioned, version = version),
    ]

finished_wheel = rule(
    implementation = _finished_wheel_impl,
    doc = "A finished wheel, alone in a folder. The output group `version` has a file with its version. Use the macro `wheel`.",
    attrs = {
        "distribution": attr.string(mandatory = True),
        "folder": attr.string(default = "dist", doc = "The folder's name."),
        "others": attr.label_list(allow_files = [".whl"], doc = "The same of other Pythons, which get the same version."),
        "pins": attr.label_list(providers = [WheelInfo], doc = "Wheels of this build to require in exactly their versions."),
        "unversioned": attr.label(mandatory = True, allow_single_file = [".whl"], doc = "py_wheel without `compress`."),
        "_finish_wheel": attr.label(default = "//wheels/private:finish_wheel", executable = True, cfg = "exec"),
    },
    provides = [WheelInfo],
)

def _pinned_versions_impl(ctx):
    module = ctx.actions.declare_file(ctx.attr.module)
    arguments = ctx.actions.args()
    arguments.add("--output", module)
    versions = []
    for pin in ctx.attr.pins:
        versions.append(pin[WheelInfo].version)
        arguments.add(versions[-1], format = "{}=%s".format(pin.label.name.upper()))
    ctx.actions.run(
        outputs = [module],
        inputs = versions,
        executable = ctx.executable._write_versions,
        arguments = [arguments],
        mnemonic = "PinnedVersions",
        progress_message = "Writing the versions that %{label} has",
    )
    return [DefaultInfo(files = depset([module]))]

pinned_versions = rule(
    implementation = _pinned_versions_impl,
    doc = "A Python module with a constant per wheel: its version, named like its target in capitals.",
    attrs = {
        "module": attr.string(mandatory = True, doc = "Path of the module in this package."),
        "pins": attr.label_list(mandatory = True, providers = [WheelInfo]),
        "_write_versions": attr.label(default = "//wheels/private:write_versions", executable = True, cfg = "exec"),
    },
)
