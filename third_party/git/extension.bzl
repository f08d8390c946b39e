"""Module extension `git_sources`: the git sources of locks/sources.lock.json as repositories, each under an overlay in third_party/."""

load(":source.bzl", "git_source", "git_sources_facts")

_LOCK = Label("//locks:sources.lock.json")

def _git_sources_impl(mctx):
    lock = json.decode(mctx.read(_LOCK))["sources"]

    def source(name, repository = None, **kwargs):
        # Only a change of its own entry makes a repository outdated.
        git_source(name = repository or name.replace("-", "_"), source = name, locked = json.encode(lock[name]), **kwargs)

    source(
        "mlc-llm",
        build_file = "//third_party/mlc_llm:mlc_llm.BUILD.bazel",
        # mlc-llm includes two of TVM's headers by where upstream's submodule is; here they come from the TVM of this build.
        files = {
            "3rdparty/tvm/src/support/{}.h".format(header): "#include \"tvm/src/support/{}.h\"\n".format(header)
            for header in ["base64", "bytes_io"]
        },
    )
    source("tokenizers-cpp", build_file = "//third_party/tokenizers_cpp:tokenizers_cpp.BUILD.bazel")

    # Beside @tvm, which is the wheel's content.
    source("tvm", repository = "tvm_device_runtime", build_file = "//third_party/tvm_cuda:tvm_device_runtime.BUILD.bazel")
    source("xgrammar", build_file = "//third_party/xgrammar:xgrammar.BUILD.bazel")
    git_sources_facts(name = "git_sources")

git_sources = module_extension(implementation = _git_sources_impl)
