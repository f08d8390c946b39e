"""Shared by the stand-ins: the error for an unsupported attribute, and running a Python file with the registered toolchain.

`unsupported` uses nothing but the common core of Starlark and Python: tests/registry evaluates this file as Python.
"""

TOOLCHAIN_TYPE = "@bazel_tools//tools/python:toolchain_type"

# Attributes that every rule and every test rule has.
COMMON = [
    "compatible_with",
    "deprecation",
    "exec_compatible_with",
    "exec_properties",
    "features",
    "restricted_to",
    "tags",
    "target_compatible_with",
    "testonly",
    "toolchains",
    "visibility",
]
TEST = ["flaky", "local", "shard_count", "size", "timeout"]

def unsupported(kind, name, given, supported):
    """Reports attributes of a target that the stand-in does not support.

    Args:
        kind: the macro's load path and name, e.g. "@rules_python//python:packaging.bzl%py_wheel".
        name: the target's name.
        given: names of the attributes that the BUILD file sets.
        supported: names of the attributes that the stand-in implements.

    Returns:
        The error's text, or None if everything is supported.
    """
    unknown = sorted([attribute for attribute in given if attribute not in supported])
    if not unknown:
        return None
    return "%s(name = \"%s\"): the stand-in in fetch/registry does not support %s; build with %s. It supports: %s" % (
        kind,
        name,
        ", ".join(unknown),
        "--config=upstream, which uses the real rules",
        ", ".join(sorted(supported)),
    )

def check(kind, name, given, supported):
    """Stops the build if `given` has an attribute that is not in `supported`."""
    error = unsupported(kind, name, given, supported)
    if error:
        fail(error)

def toolchain_runtime(ctx):
    """The interpreter of the toolchain that was resolved for a target."""
    runtime = ctx.toolchains[TOOLCHAIN_TYPE].py3_runtime
    if not runtime:
        fail("the registered Python toolchain has no py3_runtime; see toolchains/python")
    return runtime

def run_python(ctx, script, arguments, inputs, outputs, **kwargs):
    """Registers an action that runs a Python file with the standard library only.

    Calling the toolchain's interpreter, rather than a py_binary, keeps the machine's own python3 out, which py_binary's
    start script needs.

    Args:
        ctx: the rule's context; the rule has the attributes RUNS_PYTHON of runtime.bzl.
        script: the File to run.
        arguments: a list of Args or strings.
        inputs: a depset of the Files that the script reads.
        outputs: the Files that it writes.
        **kwargs: passed to ctx.actions.run.
    """
    runtime = ctx.attr._python[PyRuntimeInfo]
    ctx.actions.run(
        executable = runtime.interpreter or runtime.interpreter_path,
        # -I: no environment variable, no user site-packages; -B: no byte code next to the script.
        arguments = ["-I", "-B", script.path] + arguments,
        inputs = depset([script], transitive = [inputs]),
        tools = [runtime.files] if runtime.files else [],
        outputs = outputs,
        **kwargs
    )

def python_launcher(ctx, script, arguments, runfiles = []):
    """Makes a target runnable: a script that starts a Python file with the toolchain's interpreter.

    Args:
        ctx: the rule's context; the rule is executable and lists TOOLCHAIN_TYPE in `toolchains`.
        script: the File to run, standard library only.
        arguments: strings and Files; a File becomes its path in the runfiles.
        runfiles: further runfiles that are needed at run time.

    Returns:
        DefaultInfo with the executable and its runfiles.
    """
    runtime = toolchain_runtime(ctx)

    def quote(text):
        return "'" + text.replace("'", "'\\''") + "'"

    def locate(file):
        path = file.short_path
        return "\"$runfiles\"/" + quote(path[3:] if path.startswith("../") else ctx.workspace_name + "/" + path)

    words = [locate(runtime.interpreter) if runtime.interpreter else quote(runtime.interpreter_path), "-I", "-B", locate(script)]
    words += [quote(argument) if type(argument) == "string" else locate(argument) for argument in arguments]
    executable = ctx.actions.declare_file(ctx.label.name + ".sh")
    ctx.actions.write(
        executable,
        """#!/bin/sh
# Starts %s with the registered Python toolchain; made by fetch/registry.
runfiles=$0.runfiles
[ -d "$runfiles" ] || runfiles=${RUNFILES_DIR:?run this with "bazel run %s"}
exec %s "$@"
""" % (script.basename, ctx.label, " ".join(words)),
        is_executable = True,
    )
    own = [script] + [argument for argument in arguments if type(argument) != "string"]
    own += [runtime.interpreter] if runtime.interpreter else []
    return DefaultInfo(
        executable = executable,
        runfiles = ctx.runfiles(own, transitive_files = runtime.files).merge_all(runfiles),
    )
