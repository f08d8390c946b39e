"""`packaged_gcc`: the targets of a repository with Debian's GCC in it, for one processor."""

load(":cc_toolchain_config.bzl", "cc_toolchain_config")

_LOADERS = {
    "aarch64": "lib/ld-linux-aarch64.so.1",
    "x86_64": "lib64/ld-linux-x86-64.so.2",
}

def _layout(cpu, runs_on):
    """Where Debian puts what: `triplet` starts the names of programs; `gcc` is GCC's own folder; then headers and libraries of what is compiled."""
    triplet = cpu + "-linux-gnu"
    if cpu == runs_on:
        return struct(
            triplet = triplet,
            gcc = "usr/lib/gcc/{}/10".format(triplet),
            headers = "usr/include",
            libraries = "usr/lib/" + triplet,
        )
    return struct(
        triplet = triplet,
        gcc = "usr/lib/gcc-cross/{}/10".format(triplet),
        headers = "usr/{}/include".format(triplet),
        libraries = "usr/{}/lib".format(triplet),
    )

# Kernel interfaces that no C++ library includes. Fewer files mean fewer links per sandbox.
_UNUSED_HEADERS = [
    "drm",
    "linux/netfilter*",
    "misc",
    "mtd",
    "rdma",
    "rpcsvc",
    "scsi",
    "sound",
    "video",
    "xen",
]

def packaged_gcc(name, cpu, runs_on = "x86_64"):
    """Defines a cc_toolchain, and for tests `g++` and `readelf`.

    Args:
        name: the cc_toolchain.
        cpu: that compiled programs run on, as @platforms//cpu calls it.
        runs_on: that the compiler runs on.
    """
    layout = _layout(cpu, runs_on)
    gcc = layout.gcc
    prefix = "usr/bin/{}-".format(layout.triplet)

    # The loader and the libraries that the tools run with.
    native.filegroup(
        name = "loader",
        srcs = [_LOADERS[runs_on]] + native.glob([
            each.format(runs_on)
            for each in [
                "lib/{}-linux-gnu/*.so*",
                "usr/lib/{}-linux-gnu/*.so.*",
                # BFD puts the version before .so.
                "usr/lib/{}-linux-gnu/lib*-system.so",
                "usr/lib/{}-linux-gnu/lib*-amd64.so",
                "usr/lib/{}-linux-gnu/lib*-arm64.so",
            ]
        ], allow_empty = True),
    )
    native.filegroup(
        name = "headers",
        srcs = native.glob(
            [
                layout.headers + "/**",
                gcc + "/include/**",
            ],
            exclude = ["{}/{}/**".format(layout.headers, folder) for folder in _UNUSED_HEADERS],
        ),
    )
    native.filegroup(
        name = "assembler",
        srcs = [
            gcc + "/as",
            prefix + "as",
            ":loader",
        ],
    )
    native.filegroup(
        name = "compiler",
        srcs = [
            gcc + "/cc1",
            gcc + "/cc1.unwrapped",
            gcc + "/cc1plus",
            gcc + "/cc1plus.unwrapped",
            "usr/bin/g++",
            "usr/bin/gcc",
            prefix + "g++-10",
            prefix + "gcc-10",
            ":assembler",
            ":headers",
        ],
    )
    native.filegroup(
        name = "linker",
        srcs = [
            gcc + "/collect2",
            gcc + "/collect2.unwrapped",
            gcc + "/ld",
            gcc + "/lto-wrapper",  # never runs, but GCC passes its path to the linker's plugin
            "usr/bin/g++",
            "usr/bin/gcc",
            prefix + "g++-10",
            prefix + "gcc-10",
            prefix + "ld.bfd",
            ":loader",
        ] + native.glob([
            gcc + "/*.a",
            gcc + "/*.o",
            gcc + "/*.so*",
            gcc + "/*.spec",
            layout.libraries + "/*.a",
            layout.libraries + "/*.o",
            layout.libraries + "/*.so",
        ] + ([] if cpu == runs_on else [layout.libraries + "/*.so.*"])),
    )
    native.filegroup(
        name = "binutils",
        srcs = [":loader"] + [
            each + tool
            for tool in [
                "ar",
                "nm",
                "objcopy",
                "objdump",
                "readelf",
                "strip",
            ]
            for each in [
                "usr/bin/",
                prefix,
            ]
        ],
    )
    native.filegroup(
        name = "all_files",
        srcs = [
            ":binutils",
            ":compiler",
            ":linker",
        ],
    )

    # For tests that compile at run time: `$(rlocationpath @debian_cc//:g++)`.
    native.filegroup(
        name = "g++",
        srcs = ["usr/bin/g++"],
        data = [":all_files"],
    )

    # For tests that inspect libraries.
    native.filegroup(
        name = "readelf",
        srcs = ["usr/bin/readelf"],
        data = [":binutils"],
    )
    cc_toolchain_config(
        name = "cc_toolchain_config",
        cpu = cpu,
        header_folders = [
            layout.headers,
            gcc + "/include",
        ],
        triplet = layout.triplet,
    )
    native.cc_toolchain(
        name = name,
        all_files = ":all_files",
        ar_files = ":binutils",
        as_files = ":compiler",
        compiler_files = ":compiler",
        dwp_files = ":loader",
        linker_files = ":linker",
        objcopy_files = ":binutils",
        strip_files = ":binutils",
        toolchain_config = ":cc_toolchain_config",
    )
