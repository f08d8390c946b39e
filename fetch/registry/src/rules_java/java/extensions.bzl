"""The module extension that bazel_tools 7.7.1 names. Nothing here uses a Java repository, so it creates none."""

def _toolchains_impl(_mctx):
    fail("Java is not built in this repository: fetch/registry has no Java toolchain; use --config=upstream")

toolchains = module_extension(implementation = _toolchains_impl)
