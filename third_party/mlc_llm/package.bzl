"""`mlc_llm_package`: mlc-llm's Python package with what this build adds to it."""

# What is added, as a package within mlc_llm.
_ADDED = "_mlc_bazel"

def _mlc_llm_package_impl(ctx):
    files = [file for file in ctx.files.upstream if file != ctx.file.init]
    added = "mlc_llm/{}/".format(_ADDED)

    init = ctx.actions.declare_file("mlc_llm/__init__.py")
    arguments = ctx.actions.args()
    arguments.add("--upstream", ctx.file.init)
    arguments.add("--import", _ADDED)
    arguments.add("--output", init)
    ctx.actions.run(
        outputs = [init],
        inputs = [ctx.file.init],
        executable = ctx.executable._make_package,
        arguments = [arguments],
        mnemonic = "MlcLlmPackage",
        progress_message = "Adding the first import to mlc_llm",
    )

    versions = ctx.actions.declare_file(added + "versions.py")
    ctx.actions.write(versions, "\n".join(
        ["\"\"\"Versions of the wheels of one build, this one's.\"\"\"\n"] +
        ["{} = \"{}\"".format(name, version) for name, version in sorted(ctx.attr.versions.items())] +
        [""],
    ))

    placed = []
    for file in ctx.files.srcs:
        placed.append(ctx.actions.declare_file(added + file.basename))
        ctx.actions.symlink(output = placed[-1], target_file = file)
    return [DefaultInfo(files = depset(files + [init, versions] + placed))]

mlc_llm_package = rule(
    implementation = _mlc_llm_package_impl,
    doc = "Upstream's files, but for an __init__.py that imports ours first, and ours as the package `mlc_llm.{}`.".format(_ADDED),
    attrs = {
        "init": attr.label(mandatory = True, allow_single_file = True, doc = "Upstream's mlc_llm/__init__.py."),
        "srcs": attr.label_list(mandatory = True, allow_files = [".py"], doc = "Modules to add."),
        "upstream": attr.label(mandatory = True, doc = "Upstream's files, `init` among them."),
        "versions": attr.string_dict(mandatory = True, doc = "Constant of the module `versions` → version."),
        "_make_package": attr.label(default = "//third_party/mlc_llm:make_package", executable = True, cfg = "exec"),
    },
)

def _linked_licenses_impl(ctx):
    output = ctx.actions.declare_file("THIRD_PARTY_LICENSES.txt")
    arguments = ctx.actions.args()
    arguments.add("--output", output)
    for label, name in ctx.attr.parts.items():
        for file in label[DefaultInfo].files.to_list():
            arguments.add("--part", "{}={}".format(name, file.path))
    arguments.add_all(ctx.files.crates)
    ctx.actions.run(
        outputs = [output],
        inputs = ctx.files.parts + ctx.files.crates,
        executable = ctx.executable._collect_licenses,
        arguments = [arguments],
        mnemonic = "LinkedLicenses",
        progress_message = "Collecting licences of %{label}",
    )
    return [DefaultInfo(files = depset([output]))]

linked_licenses = rule(
    implementation = _linked_licenses_impl,
    doc = "One text of the licences of all that is linked into a library.",
    attrs = {
        "crates": attr.label(mandatory = True, allow_files = [".crate"], doc = "Rust crates; every licence file in them counts."),
        "parts": attr.label_keyed_string_dict(mandatory = True, allow_files = True, doc = "Licence file, or header that begins with one → name of what it is of."),
        "_collect_licenses": attr.label(default = "//third_party/mlc_llm:collect_licenses", executable = True, cfg = "exec"),
    },
)
