"""Writes down every action behind targets, so that a test can say what no action may name."""

_ActionsInfo = provider(doc = "Actions of a target and of all it depends on.", fields = {"reports": "depset of JSON texts, one per action"})

def _actions_aspect_impl(target, ctx):
    tags = getattr(ctx.rule.attr, "tags", [])
    actions = [
        json.encode({
            "arguments": action.argv or [],
            "environment": action.env or {},
            "mnemonic": action.mnemonic,
            "tags": tags,
            "target": "//{}:{}".format(target.label.package, target.label.name) if not target.label.workspace_name else str(target.label),
        })
        for action in target.actions
    ]
    below = []
    for name in dir(ctx.rule.attr):
        value = getattr(ctx.rule.attr, name)
        for dependency in value if type(value) == "list" else [value]:
            if type(dependency) == "Target" and _ActionsInfo in dependency:
                below.append(dependency[_ActionsInfo].reports)
    return [_ActionsInfo(reports = depset(actions, transitive = below))]

_actions_aspect = aspect(
    implementation = _actions_aspect_impl,
    attr_aspects = ["*"],
)

def _actions_impl(ctx):
    report = ctx.actions.declare_file(ctx.label.name + ".jsonl")
    reports = depset(transitive = [target[_ActionsInfo].reports for target in ctx.attr.targets])
    ctx.actions.write(report, "\n".join(reports.to_list()) + "\n")
    return [DefaultInfo(files = depset([report]))]

actions = rule(
    implementation = _actions_impl,
    doc = """A file with one JSON object for each action of the targets and of all they depend on, of whatever kind.

Keys: target, tags (the target's), mnemonic, arguments, environment. Nothing is built: the report is of the action graph. What Bazel does not show
to rules, an action's execution requirements, action_graph.py reads from `aquery`.

Example:

    actions(
        name = "published_actions",
        targets = ["//wheels:tvm_runtime", "//images:tvm_runtime"],
    )
""",
    attrs = {"targets": attr.label_list(aspects = [_actions_aspect], mandatory = True)},
)
