"""Rules for Rust. Public: `cargo_static_library`.

This is not rules_rust, because the `registries` profile has no module registry, and cargo is enough for one library.
"""

load("@bazel_tools//tools/build_defs/cc:action_names.bzl", "ACTION_NAMES")
load("@bazel_tools//tools/cpp:toolchain_utils.bzl", "find_cpp_toolchain", "use_cpp_toolchain")
load("//platforms:defs.bzl", "by_cpu")
load("//toolchains/rust/private:settings.bzl", "NO_RUST")

# Crates to compile at the same time. More gains little, because crates depend on each other.
_JOBS = 4

# Libraries that Rust's standard library needs (`rustc --print=native-static-libs`).
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
    more_inputs = []
    if ctx.attr.target:
        host = ctx.attr._host_cc[cc_common.CcToolchainInfo]
        arguments.add("--target", ctx.attr.target)
        arguments.add("--target-library", ctx.files.target_library[0].dirname)
        arguments.add("--host-cc", host.compiler_executable)
        more_inputs = [ctx.attr.target_library.files, host.all_files]
    arguments.add("--output", library)
    ctx.actions.run(
        outputs = [library],
        inputs = depset(
            [ctx.file.manifest, ctx.file.lock] + ctx.files.srcs + ctx.files.crates,
            transitive = [ctx.attr._files.files, toolchain.all_files] + more_inputs,
        ),
        executable = ctx.executable._cargo_build,
        arguments = [arguments],
        resource_set = _resources,
        mnemonic = "CargoBuild",
        progress_message = "Building Rust package %{label}",
    )

    # Rust code is position-independent, so it suits programs and shared libraries.
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

_cargo_static_library = rule(
    implementation = _cargo_static_library_impl,
    doc = "Use the macro `cargo_static_library`.",
    attrs = {
        "crates": attr.label(mandatory = True, allow_files = [".crate"], doc = "The crates that the lock names: the target `crates` of a crates.set repository."),
        "lock": attr.label(mandatory = True, allow_single_file = True, doc = "Cargo.lock, in any folder."),
        "manifest": attr.label(mandatory = True, allow_single_file = True, doc = "Cargo.toml of a package without workspace."),
        "srcs": attr.label_list(mandatory = True, allow_files = True, doc = "The package's other files, in the manifest's folder or its subfolders."),
        "target": attr.string(doc = "Rust's name of the platform; empty: that of the build."),
        "target_library": attr.label(doc = "Rust's standard library for `target`."),
        "_cargo": attr.label(default = "@debian_rust//:cargo", allow_single_file = True, cfg = "exec"),
        "_cargo_build": attr.label(default = "//toolchains/rust/private:cargo_build", executable = True, cfg = "exec"),
        "_files": attr.label(default = "@debian_rust//:files", cfg = "exec"),
        "_host_cc": attr.label(default = "@bazel_tools//tools/cpp:current_cc_toolchain", cfg = "exec"),
        "_rustc": attr.label(default = "@debian_rust//:rustc", allow_single_file = True, cfg = "exec"),
    },
    fragments = ["cpp"],
    provides = [CcInfo],
    toolchains = use_cpp_toolchain(),
)

def cargo_static_library(name, srcs, crates, lock, manifest, target_compatible_with = [], **kwargs):
    """Builds a Rust package with a C interface into a static library, `lib<name>.a`, with cargo in one action and without network.

    Name it in the `deps` of a cc_library that has the C header. Crates compile C code with the toolchain in //toolchains/cc, and build scripts
    run with the C library of @debian_rust. The library contains no path of the build.

    Example:

        cargo_static_library(
            name = "tokenizers_c",
            srcs = ["@tokenizers_cpp//:rust_srcs"],
            crates = "@crates_tokenizers_cpp//:crates",
            lock = "//third_party/tokenizers_cpp:Cargo.lock",
            manifest = "@tokenizers_cpp//:rust/Cargo.toml",
        )

    Args:
        name: the target.
        srcs: the package's other files, in the manifest's folder or its subfolders.
        crates: the crates that the lock names: the target `crates` of a crates.set repository.
        lock: Cargo.lock, in any folder.
        manifest: Cargo.toml of a package without workspace.
        target_compatible_with: constraints in addition to that rustc runs on x86-64.
        **kwargs: attributes that every rule has.
    """
    _cargo_static_library(
        name = name,
        srcs = srcs,
        crates = crates,
        lock = lock,
        manifest = manifest,
        target = by_cpu("", "aarch64-unknown-linux-gnu"),
        target_library = by_cpu(None, Label("@debian_rust_arm64//:standard_library")),
        target_compatible_with = target_compatible_with + select({
            Label("//platforms:built_on_arm64"): [Label("//toolchains/rust:" + NO_RUST)],
            "//conditions:default": [],
        }),
        **kwargs
    )
