"""Module extension that detects the platform Bazel runs on."""

_CPUS = {
    "aarch64": "aarch64",
    "amd64": "x86_64",
    "arm64": "aarch64",
    "x86_64": "x86_64",
}

def _host_platform_repo_impl(rctx):
    # The stand-ins support Linux only. Other systems use the upstream profile; fail early on any mismatch.
    if not rctx.os.name.startswith("linux") or rctx.os.arch not in _CPUS:
        fail("fetch/registry serves Linux on %s, found %s on %s; use --config=upstream" % (
            " or ".join(sorted({cpu: None for cpu in _CPUS.values()})),
            rctx.os.name,
            rctx.os.arch,
        ))
    rctx.file("BUILD.bazel", "exports_files([\"constraints.bzl\"])\n")
    rctx.file("constraints.bzl", "HOST_CONSTRAINTS = [\"@platforms//cpu:%s\", \"@platforms//os:linux\"]\n" % _CPUS[rctx.os.arch])

_host_platform_repo = repository_rule(
    implementation = _host_platform_repo_impl,
    doc = "Writes constraints.bzl with HOST_CONSTRAINTS.",
)

def _host_platform_impl(_mctx):
    _host_platform_repo(name = "host_platform")

host_platform = module_extension(
    implementation = _host_platform_impl,
    doc = "Makes @host_platform.",
)
