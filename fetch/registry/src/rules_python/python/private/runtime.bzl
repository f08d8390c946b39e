"""Which interpreter the stand-ins' actions run on."""

load(":stand_in.bzl", "TOOLCHAIN_TYPE", "toolchain_runtime")

def _runtime_for_actions_impl(ctx):
    return [toolchain_runtime(ctx)]

runtime_for_actions = rule(
    implementation = _runtime_for_actions_impl,
    doc = "The interpreter of the platform that this target is built for.",
    toolchains = [TOOLCHAIN_TYPE],
)

# Attributes of a rule that calls run_python: the platform of its actions is that of the build, not of what is built.
RUNS_PYTHON = {"_python": attr.label(
    default = Label("//python/private:runtime_for_actions"),
    cfg = "exec",
    providers = [PyRuntimeInfo],
)}
