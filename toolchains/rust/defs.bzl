"""Rules for Rust. Public: `cargo_static_library`.

Not rules_rust: in the `registries` profile there is no module registry to have it from, and one library needs no more than cargo.
"""

load("@bazel_tools//tools/build_defs/cc:action_names.bzl", "ACTION_NAMES")
load("@bazel_tools//tools/cpp:toolchain_utils.bzl", "find_cpp_toolchain", "use_cpp_toolchain")

# Crates compiled at once. More brings little: from some point on each waits for the one before.
_JOBS = 4

# Rust's standard library calls into these (`rustc --print=native-static-libs`).
_LINK_FLAGS = ["-ldl", "-lm", "-lpthread"]

def _resources(_os, _inputs):
    return {"cpu": _JOBS, "memory": 2048}

def _cargo_static_library_impl(ctx):
    library = ctx.actions.declare_file("lib{}.a".format(ctx.label.name))
    toolchain = find_cpp_toolchain(ctx)
    features = cc_common.configure_features(ctx = ctx, cc_toolchain = toolchain)

    arguments = ctx.actions.args()
    arguments.add("--cargo", ctx.file._cargo)
    arguments.add("--rustc", ctx.file._rustc)
    for option, action in {
        "--ar": ACTION_NAMES.cpp_link_static_library,
        "--cc": ACTION_NAMES.c_compile,
        "--cxx": ACTION_NAMES.cpp_compile,
        "--strip": ACTION_NAMES.strip,
    }.items():
        arguments.add(option, cc_common.get_tool_for_action(feature_configuration = features, action_name = action))
    arguments.add("--manifest", ctx.file.manifest)
    arguments.add("--lock", ctx.file.lock)
    arguments.add_all(ctx.files.srcs, before_each = "--source")
    arguments.add_all(ctx.files.crates, before_each = "--crate")
    arguments.add(_JOBS, format = "--jobs=%s")
    arguments.add("--output", library)
    ctx.actions.run(
        outputs = [library],
        inputs = depset(
            [ctx.file.manifest, ctx.file.lock] + ctx.files.srcs + ctx.files.crates,
            transitive = [ctx.attr._files.files, toolchain.all_files],
        ),
        executable = ctx.executable._cargo_build,
        arguments = [arguments],
        resource_set = _resources,
        mnemonic = "CargoBuild",
        progress_message = "Building Rust package %{label}",
    )

    # Rust's code is position-independent, so it fits programs and shared libraries.
    linker_input = cc_common.create_linker_input(
        owner = ctx.label,
        libraries = depset([cc_common.create_library_to_link(
            actions = ctx.actions,
            feature_configuration = features,
            cc_toolchain = toolchain,
            pic_static_library = library,
        )]),
        user_link_flags = _LINK_FLAGS,
    )
    return [
        DefaultInfo(files = depset([library])),
        CcInfo(linking_context = cc_common.create_linking_context(linker_inputs = depset([linker_input]))),
    ]

cargo_static_library = rule(
    implementation = _cargo_static_library_impl,
    doc = """A Rust package with a C interface as a static library, `lib<name>.a`, made by cargo in one action without network.

What is in `deps` of a cc_library gets linked; the C header is that cc_library's. Crates that compile C do so with the toolchain of
//toolchains/cc, build scripts run on the C library of @debian_rust, and no path of the build gets into the library.

Example:

    cargo_static_library(
        name = "tokenizers_c",
        srcs = ["@tokenizers_cpp//:rust_srcs"],
        crates = "@crates_tokenizers_cpp//:crates",
        lock = "//third_party/tokenizers_cpp:Cargo.lock",
        manifest = "@tokenizers_cpp//:rust/Cargo.toml",
    )
""",
    attrs = {
        "crates": attr.label(mandatory = True, allow_files = [".crate"], doc = "What the lock names: the target `crates` of a crates.set repository."),
        "lock": attr.label(mandatory = True, allow_single_file = True, doc = "Cargo.lock, wherever it is."),
        "manifest": attr.label(mandatory = True, allow_single_file = True, doc = "Cargo.toml of a package without workspace."),
        "srcs": attr.label_list(mandatory = True, allow_files = True, doc = "The package's other files, in or below the manifest's folder."),
        "_cargo": attr.label(default = "@debian_rust//:cargo", allow_single_file = True, cfg = "exec"),
        "_cargo_build": attr.label(default = "//toolchains/rust/private:cargo_build", executable = True, cfg = "exec"),
        "_files": attr.label(default = "@debian_rust//:files", cfg = "exec"),
        "_rustc": attr.label(default = "@debian_rust//:rustc", allow_single_file = True, cfg = "exec"),
    },
    fragments = ["cpp"],
    provides = [CcInfo],
    toolchains = use_cpp_toolchain(),
)
