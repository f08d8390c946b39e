"""A model's folder with random weights, and a library: what `mlc_model` makes, where mlc-llm's sources are missing."""

load("//models:defs.bzl", "MlcModelInfo")

def _fake_model_impl(ctx):
    weights = ctx.actions.declare_directory(ctx.label.name)
    arguments = ctx.actions.args()
    arguments.add_all([weights], expand_directories = False)
    ctx.actions.run(
        outputs = [weights],
        executable = ctx.executable._fake_model,
        arguments = [arguments],
        mnemonic = "FakeModel",
    )
    return [
        DefaultInfo(files = depset([weights, ctx.file.library])),
        MlcModelInfo(library = ctx.file.library, weights = weights),
        OutputGroupInfo(weights = depset([weights])),
    ]

fake_model = rule(
    implementation = _fake_model_impl,
    doc = """A model for tests of what packs models.

Example:

    fake_model(
        name = "fake",
        library = ":affine_cpu",
    )
""",
    attrs = {
        "library": attr.label(mandatory = True, allow_single_file = [".so"], doc = "A `relax_library`."),
        "_fake_model": attr.label(default = "//tests/models:fake_model", executable = True, cfg = "exec"),
    },
    provides = [MlcModelInfo],
)
