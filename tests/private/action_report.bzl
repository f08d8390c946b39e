"""Reports the actions behind targets, so that tests can check their command lines, environments and inputs."""

_ActionsInfo = provider(doc = "The actions of a target and its dependencies.", fields = {"reports": "depset of structs with mnemonic and JSON text, one per action"})

def _compiles(mnemonic):
    return mnemonic.startswith("Cpp") or mnemonic in ["CudaCompile", "Objcopy"]

# Actions that make wheels; tests/wheels checks everything that reaches them.
_WHEELS = ["FinishWheel", "IdentifyWheel", "PyWheel"]

def _tools(ctx):
    """Files of a rule's tools, which are its implicit attributes."""
    files = []
    for name in dir(ctx.rule.attr):
        tool = getattr(ctx.rule.attr, name)
        if name.startswith("_") and type(tool) == "Target":
            files += tool[DefaultInfo].files.to_list() + tool[DefaultInfo].default_runfiles.files.to_list()
    return [file.path for file in files]

def _headers(target, ctx):
    """The headers that compiling this target may read."""
    targets = [target] + getattr(ctx.rule.attr, "deps", []) + getattr(ctx.rule.attr, "implementation_deps", [])
    headers = [each[CcInfo].compilation_context.headers for each in targets if type(each) == "Target" and CcInfo in each]
    return getattr(ctx.rule.files, "srcs", []) + depset(transitive = headers).to_list()

def _inputs(action, target, ctx):
    """All inputs of an action. Once a compile action has run, Bazel only names those headers that it read."""
    inputs = action.inputs.to_list() + (_headers(target, ctx) if action.mnemonic == "CppCompile" else [])
    return sorted({file.path: None for file in inputs})

def _action_report_aspect_impl(target, ctx):
    label = "//{}:{}".format(target.label.package, target.label.name) if not target.label.workspace_name else str(target.label)
    reports = []
    for action in target.actions:
        report = {
            "arguments": action.argv or [],
            "environment": action.env or {},
            "mnemonic": action.mnemonic,
            "tags": getattr(ctx.rule.attr, "tags", []),
            "target": label,
        }
        if _compiles(action.mnemonic) or action.mnemonic in _WHEELS:
            report |= {
                "inputs": _inputs(action, target, ctx),
                "outputs": [file.path for file in action.outputs.to_list()],
            }
        if action.mnemonic in _WHEELS:
            report["tools"] = _tools(ctx)
        reports.append(struct(json = json.encode(report), mnemonic = action.mnemonic))
    below = []
    for name in dir(ctx.rule.attr):
        value = getattr(ctx.rule.attr, name)
        for dependency in value if type(value) == "list" else [value]:
            if type(dependency) == "Target" and _ActionsInfo in dependency:
                below.append(dependency[_ActionsInfo].reports)
    return [_ActionsInfo(reports = depset(reports, transitive = below))]

_action_report_aspect = aspect(
    implementation = _action_report_aspect_impl,
    attr_aspects = ["*"],
)

def _action_report_impl(ctx):
    report = ctx.actions.declare_file(ctx.label.name + ".jsonl")
    reports = depset(transitive = [target[_ActionsInfo].reports for target in ctx.attr.targets]).to_list()
    lines = [each.json for each in reports if not ctx.attr.only_compiling or _compiles(each.mnemonic)]
    ctx.actions.write(report, "\n".join(lines) + "\n")
    return [DefaultInfo(files = depset([report]))]

action_report = rule(
    implementation = _action_report_impl,
    doc = """Writes a file with one JSON object per action of the targets and their dependencies.

Keys: target, tags (the target's), mnemonic, arguments, environment. Actions that compile, link, archive, strip or make wheels also have inputs and
outputs, and those that make wheels have tools, the files of the programs that they run. The report describes the action graph: nothing is built.
Bazel does not show execution requirements to rules; see `bazel aquery`.

Example:

    action_report(
        name = "tvm_actions",
        only_compiling = True,
        targets = ["//third_party/tvm:libtvm_runtime"],
    )
""",
    attrs = {
        "only_compiling": attr.bool(doc = "Whether to report only actions that compile."),
        "targets": attr.label_list(aspects = [_action_report_aspect], mandatory = True),
    },
)
