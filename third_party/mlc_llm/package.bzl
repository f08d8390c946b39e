"""`mlc_llm_package`: mlc-llm's Python package with the additions of this build."""

# The package in mlc_llm that holds the additions.
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

    placed = []
    for file in ctx.files.srcs:
        placed.append(ctx.actions.declare_file(added + file.basename))
        ctx.actions.symlink(output = placed[-1], target_file = file)
    return [DefaultInfo(files = depset(files + [init] + placed))]

mlc_llm_package = rule(
    implementation = _mlc_llm_package_impl,
    doc = "Upstream's files with our modules as the package `mlc_llm.{}`, which __init__.py imports first.".format(_ADDED),
    attrs = {
        "init": attr.label(mandatory = True, allow_single_file = True, doc = "Upstream's mlc_llm/__init__.py."),
        "srcs": attr.label_list(mandatory = True, allow_files = [".py"], doc = "Modules to add."),
        "upstream": attr.label(mandatory = True, doc = "Upstream's files, including `init`."),
        "_make_package": attr.label(default = "//third_party/mlc_llm:make_package", executable = True, cfg = "exec"),
    },
)
