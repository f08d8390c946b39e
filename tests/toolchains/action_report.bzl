"""Writes down the C++ actions behind targets, so that a test can say what no action may name."""

_ActionsInfo = provider("C++ actions of a target and of all it depends on.", fields = {"reports": "depset of JSON texts, one per target"})

def _action_report_aspect_impl(target, ctx):
    actions = [
        {
            "arguments": action.argv or [],
            "environment": action.env,
            "inputs": [file.path for file in action.inputs.to_list()],
            "mnemonic": action.mnemonic,
            "outputs": [file.path for file in action.outputs.to_list()],
            "target": str(target.label),
        }
        for action in target.actions
        if action.mnemonic.startswith("Cpp") or action.mnemonic in ["CudaCompile", "Objcopy"]
    ]
    below = []
    for name in dir(ctx.rule.attr):
        value = getattr(ctx.rule.attr, name)
        for dependency in value if type(value) == "list" else [value]:
            if type(dependency) == "Target" and _ActionsInfo in dependency:
                below.append(dependency[_ActionsInfo].reports)
    return [_ActionsInfo(reports = depset([json.encode(action) for action in actions], transitive = below))]

_action_report_aspect = aspect(
    implementation = _action_report_aspect_impl,
    attr_aspects = ["*"],
)

def _action_report_impl(ctx):
    report = ctx.actions.declare_file(ctx.label.name + ".jsonl")
    reports = depset(transitive = [target[_ActionsInfo].reports for target in ctx.attr.targets])
    ctx.actions.write(report, "\n".join(reports.to_list()) + "\n")
    return [DefaultInfo(files = depset([report]))]

action_report = rule(
    implementation = _action_report_impl,
    doc = """A file with one JSON object per C++ action (compile, link, archive, strip) of the targets and all they depend on.

Keys: target, mnemonic, arguments, environment, inputs, outputs. Nothing is built: the report is of the action graph.

Example:

    action_report(
        name = "tvm_actions",
        targets = ["//third_party/tvm:libtvm_runtime"],
    )
""",
    attrs = {"targets": attr.label_list(aspects = [_action_report_aspect], mandatory = True)},
)
