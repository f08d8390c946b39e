"""The rule `surroundings`: what an action of this build sees of the machine."""

def _surroundings_impl(ctx):
    output = ctx.actions.declare_file(ctx.label.name + ".json")

    # As the actions that matter: without the environment that --action_env adds to, so that only what reaches those too is seen here.
    ctx.actions.run(
        executable = ctx.executable._tool,
        arguments = ["--output", output.path],
        outputs = [output],
        mnemonic = "Surroundings",
        progress_message = "Looking at what actions see of this machine",
        # An earlier answer, or another machine's, says nothing of this build.
        execution_requirements = {"no-cache": "", "no-remote": ""},
    )
    return [DefaultInfo(files = depset([output]), runfiles = ctx.runfiles([output]))]

surroundings = rule(
    implementation = _surroundings_impl,
    attrs = {
        "_tool": attr.label(default = "//release/private/reproduce:look", executable = True, cfg = "exec"),
    },
    doc = "Writes `<name>.json`, what an action of this build sees: see surroundings.py.",
)
