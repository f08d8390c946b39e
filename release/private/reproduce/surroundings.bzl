"""The rule `surroundings`: what an action of this build sees of the host."""

def _surroundings_impl(ctx):
    output = ctx.actions.declare_file(ctx.label.name + ".json")

    # Like the actions that matter, without the environment that --action_env extends, so that it sees only what those see.
    ctx.actions.run(
        executable = ctx.executable._tool,
        arguments = ["--output", output.path],
        outputs = [output],
        mnemonic = "Surroundings",
        progress_message = "Recording what actions see of this machine",
        # An earlier result, or another machine's, says nothing about this build.
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
