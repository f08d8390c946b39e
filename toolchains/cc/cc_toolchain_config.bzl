"""How Bazel calls the packaged GCC. This file has the flags; wrapper scripts set sysroot, header folders and relocation (cc.MODULE.bazel)."""

load("@bazel_tools//tools/build_defs/cc:action_names.bzl", "ACTION_NAMES")
load(
    "@bazel_tools//tools/cpp:cc_toolchain_config_lib.bzl",
    "action_config",
    "artifact_name_pattern",
    "feature",
    "flag_group",
    "flag_set",
    "tool",
    "tool_path",
    "variable_with_value",
    "with_feature_set",
)

_C_COMPILE = [ACTION_NAMES.c_compile]
_ASSEMBLE = [
    ACTION_NAMES.assemble,
    ACTION_NAMES.preprocess_assemble,
]
_CPP_COMPILE = [
    ACTION_NAMES.cpp_compile,
    ACTION_NAMES.cpp_header_parsing,
    ACTION_NAMES.linkstamp_compile,
]
_COMPILE = _C_COMPILE + _CPP_COMPILE
_PREPROCESS = _COMPILE + [ACTION_NAMES.preprocess_assemble]
_COMPILE_OR_ASSEMBLE = _COMPILE + _ASSEMBLE
_LINK_SHARED = [
    ACTION_NAMES.cpp_link_dynamic_library,
    ACTION_NAMES.cpp_link_nodeps_dynamic_library,
]
_LINK_EXECUTABLE = [ACTION_NAMES.cpp_link_executable]
_LINK = _LINK_SHARED + _LINK_EXECUTABLE

_TOOLS = {
    "usr/bin/gcc": _C_COMPILE + _ASSEMBLE,
    "usr/bin/g++": _CPP_COMPILE + _LINK,
    "usr/bin/ar": [ACTION_NAMES.cpp_link_static_library],
    "usr/bin/strip": [ACTION_NAMES.strip],
    "usr/bin/objcopy": [ACTION_NAMES.objcopy_embed_data],
}

def _flags(name, actions, flags, enabled = True, **kwargs):
    """A feature with one group of flags. Further arguments go to flag_group (iterate_over, expand_if_available, …)."""
    return feature(
        name = name,
        enabled = enabled,
        flag_sets = [flag_set(actions = actions, flag_groups = [flag_group(flags = flags, **kwargs)])],
    )

def _mode_flags(name, actions, flags_by_mode):
    """Flags that depend on --compilation_mode."""
    return feature(
        name = name,
        enabled = True,
        flag_sets = [
            flag_set(
                actions = actions,
                flag_groups = [flag_group(flags = flags)],
                with_features = [with_feature_set(features = [mode])],
            )
            for mode, flags in flags_by_mode.items()
        ],
    )

def _library_group(kind, flags, each = None):
    """Linker arguments for one kind of library."""
    return flag_group(
        iterate_over = each,
        flags = flags,
        expand_if_equal = variable_with_value(name = "libraries_to_link.type", value = kind),
    )

def _libraries_to_link():
    """Objects and libraries in Bazel's order."""
    return feature(
        name = "libraries_to_link",
        enabled = True,
        flag_sets = [flag_set(
            actions = _LINK,
            flag_groups = [flag_group(
                iterate_over = "libraries_to_link",
                expand_if_available = "libraries_to_link",
                flag_groups = [
                    flag_group(flags = ["-Wl,--whole-archive"], expand_if_true = "libraries_to_link.is_whole_archive"),
                    flag_group(
                        flags = ["-Wl,--start-lib"],
                        expand_if_equal = variable_with_value(name = "libraries_to_link.type", value = "object_file_group"),
                    ),
                    _library_group("object_file_group", ["%{libraries_to_link.object_files}"], each = "libraries_to_link.object_files"),
                    flag_group(
                        flags = ["-Wl,--end-lib"],
                        expand_if_equal = variable_with_value(name = "libraries_to_link.type", value = "object_file_group"),
                    ),
                    _library_group("object_file", ["%{libraries_to_link.name}"]),
                    _library_group("interface_library", ["%{libraries_to_link.name}"]),
                    _library_group("static_library", ["%{libraries_to_link.name}"]),
                    _library_group("dynamic_library", ["-l%{libraries_to_link.name}"]),
                    _library_group("versioned_dynamic_library", ["-l:%{libraries_to_link.name}"]),
                    flag_group(flags = ["-Wl,--no-whole-archive"], expand_if_true = "libraries_to_link.is_whole_archive"),
                ],
            )],
        )],
    )

def _archiver_flags():
    """Archiver flags. D omits times and owners."""
    return feature(
        name = "archiver_flags",
        enabled = True,
        flag_sets = [flag_set(
            actions = [ACTION_NAMES.cpp_link_static_library],
            flag_groups = [
                flag_group(flags = ["rcsD", "%{output_execpath}"], expand_if_available = "output_execpath"),
                flag_group(
                    iterate_over = "libraries_to_link",
                    expand_if_available = "libraries_to_link",
                    flag_groups = [
                        _library_group("object_file", ["%{libraries_to_link.name}"]),
                        _library_group("object_file_group", ["%{libraries_to_link.object_files}"], each = "libraries_to_link.object_files"),
                    ],
                ),
            ],
        )],
    )

def _features():
    """All features, in the order of their flags on the command line."""
    return [
        # Bazel adds no flags to the ones below.
        feature(name = "no_legacy_features"),
        feature(name = "opt"),
        feature(name = "dbg"),
        feature(name = "fastbuild"),
        feature(name = "supports_pic", enabled = True),
        feature(name = "supports_dynamic_linker", enabled = True),

        # Compiling. Each target chooses its own warnings.
        _mode_flags("optimization", _COMPILE, {
            "dbg": ["-O0", "-g"],
            "fastbuild": ["-O0"],
            # A backtrace needs line tables and function names; more debug info would double the size of objects.
            "opt": ["-O2", "-g1", "-DNDEBUG", "-ffunction-sections", "-fdata-sections"],
        }),
        _flags("random_seed", _COMPILE, ["-frandom-seed=%{output_file}"], expand_if_available = "output_file"),
        _flags("pic", _COMPILE_OR_ASSEMBLE, ["-fPIC"], expand_if_available = "pic"),
        _flags("dependency_file", _PREPROCESS, ["-MD", "-MF", "%{dependency_file}"], expand_if_available = "dependency_file"),
        _flags("preprocessor_defines", _PREPROCESS, ["-D%{preprocessor_defines}"], iterate_over = "preprocessor_defines"),
        _flags("includes", _PREPROCESS, ["-include", "%{includes}"], iterate_over = "includes", expand_if_available = "includes"),
        feature(
            name = "include_paths",
            enabled = True,
            flag_sets = [flag_set(actions = _PREPROCESS, flag_groups = [
                flag_group(flags = ["-iquote", "%{quote_include_paths}"], iterate_over = "quote_include_paths"),
                flag_group(flags = ["-I%{include_paths}"], iterate_over = "include_paths"),
                flag_group(flags = ["-isystem", "%{system_include_paths}"], iterate_over = "system_include_paths"),
            ])],
        ),
        _flags("user_compile_flags", _COMPILE_OR_ASSEMBLE, ["%{user_compile_flags}"], iterate_over = "user_compile_flags", expand_if_available = "user_compile_flags"),

        # These follow the target's flags, so that no target can override them.
        _flags("deterministic", _COMPILE_OR_ASSEMBLE, [
            "-ffile-prefix-map=/proc/self/cwd=.",  # the current folder that Bazel tells GCC
            "-Wno-builtin-macro-redefined",
            "-D__DATE__=\"redacted\"",
            "-D__TIMESTAMP__=\"redacted\"",
            "-D__TIME__=\"redacted\"",
        ]),
        _flags("compiler_input_flags", _COMPILE_OR_ASSEMBLE, ["-c", "%{source_file}"], expand_if_available = "source_file"),
        feature(
            name = "compiler_output_flags",
            enabled = True,
            flag_sets = [flag_set(actions = _COMPILE_OR_ASSEMBLE, flag_groups = [
                flag_group(flags = ["-S"], expand_if_available = "output_assembly_file"),
                flag_group(flags = ["-E"], expand_if_available = "output_preprocess_file"),
                flag_group(flags = ["-o", "%{output_file}"], expand_if_available = "output_file"),
            ])],
        ),

        # Linking.
        _flags("shared_flag", _LINK_SHARED, ["-shared"]),
        _flags("linkstamps", _LINK, ["%{linkstamp_paths}"], iterate_over = "linkstamp_paths", expand_if_available = "linkstamp_paths"),
        _flags("output_execpath_flags", _LINK, ["-o", "%{output_execpath}"], expand_if_available = "output_execpath"),

        # Run paths to Bazel's folders, for programs only: libraries ship, so their targets set the run path.
        _flags(
            "runtime_library_search_directories",
            _LINK_EXECUTABLE,
            ["-Wl,-rpath,$ORIGIN/%{runtime_library_search_directories}"],
            iterate_over = "runtime_library_search_directories",
            expand_if_available = "runtime_library_search_directories",
        ),
        _flags("library_search_directories", _LINK, ["-L%{library_search_directories}"], iterate_over = "library_search_directories", expand_if_available = "library_search_directories"),
        _libraries_to_link(),
        _flags("force_pic_flags", _LINK_EXECUTABLE, ["-pie"], expand_if_available = "force_pic"),
        _flags("user_link_flags", _LINK, ["%{user_link_flags}"], iterate_over = "user_link_flags", expand_if_available = "user_link_flags"),
        _flags("linker", _LINK, [
            "-Wl,--build-id=sha1",  # derived from the content, so that debuggers can find the symbols
            "-Wl,-z,relro,-z,now",
            "-pthread",
        ]),
        _mode_flags("remove_unused_sections", _LINK, {"opt": ["-Wl,--gc-sections"]}),
        _flags("strip_debug_symbols", _LINK, ["-Wl,-S"], expand_if_available = "strip_debug_symbols"),

        # Archives and symbols.
        _archiver_flags(),
        _flags("linker_param_file", _LINK + [ACTION_NAMES.cpp_link_static_library], ["@%{linker_param_file}"], expand_if_available = "linker_param_file"),
        feature(
            name = "strip_flags",
            enabled = True,
            flag_sets = [flag_set(actions = [ACTION_NAMES.strip], flag_groups = [
                flag_group(flags = ["-S", "-D", "-o", "%{output_file}"]),
                flag_group(flags = ["%{stripopts}"], iterate_over = "stripopts"),
                flag_group(flags = ["%{input_file}"]),
            ])],
        ),
    ]

def _cc_toolchain_config_impl(ctx):
    return cc_common.create_cc_toolchain_config_info(
        ctx = ctx,
        toolchain_identifier = "debian_gcc",
        compiler = "gcc",
        # Bazel's name of x86-64 is older than @platforms.
        target_cpu = "k8" if ctx.attr.cpu == "x86_64" else ctx.attr.cpu,
        target_libc = "glibc_2.31",
        target_system_name = ctx.attr.triplet,
        abi_version = "gcc",
        abi_libc_version = "glibc_2.31",
        cxx_builtin_include_directories = [
            "%package(@@{}//)%/{}".format(ctx.label.workspace_name, folder)
            for folder in ctx.attr.header_folders
        ],
        features = _features(),
        action_configs = [
            action_config(action_name = action, enabled = True, tools = [tool(path = path)])
            for path, actions in _TOOLS.items()
            for action in actions
        ],
        artifact_name_patterns = [
            artifact_name_pattern(category_name = "static_library", prefix = "lib", extension = ".a"),
            artifact_name_pattern(category_name = "dynamic_library", prefix = "lib", extension = ".so"),
        ],
        tool_paths = [
            tool_path(name = name, path = "usr/bin/" + program)
            for name, program in {
                "ar": "ar",
                "cpp": "gcc",
                "gcc": "gcc",
                "ld": "g++",
                "nm": "nm",
                "objcopy": "objcopy",
                "objdump": "objdump",
                "strip": "strip",
            }.items()
        ],
    )

cc_toolchain_config = rule(
    implementation = _cc_toolchain_config_impl,
    doc = "Configures the packaged GCC as a Bazel C++ toolchain. Instantiate it in its repository, to which tool paths are relative.",
    attrs = {
        "cpu": attr.string(mandatory = True, doc = "What compiled programs run on, as @platforms//cpu calls it."),
        "header_folders": attr.string_list(mandatory = True, doc = "Folders of this repository with the headers that GCC finds by itself."),
        "triplet": attr.string(mandatory = True, doc = "GNU's name of the system that compiled programs run on."),
    },
    provides = [CcToolchainConfigInfo],
)
