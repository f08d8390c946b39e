"""The module extension that bazel_tools 7.7.1 names; only `bazel mod tidy` runs it."""

def _buildozer_binary_impl(_mctx):
    fail("`bazel mod tidy` needs buildozer, which fetch/registry does not have; use --config=upstream")

buildozer_binary = module_extension(implementation = _buildozer_binary_impl)
