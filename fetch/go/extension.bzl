"""Module extension `go_tools`: the modules of go.mod, vendored, as the repository @go_tools.

Go's own go.sum pins them by hash, and Debian's go downloads them from the proxy that the machine's Go is configured with. They are linters
and reach no output, so they are in no lock of locks/ and in no pack for a machine without a network.
"""

_GO = Label("@debian_go//:usr/lib/go-1.24/bin/go")

def _go_modules_impl(rctx):
    # Labels first: each that is new restarts this function.
    go = rctx.path(_GO)
    script = rctx.path(Label("//fetch/go:vendor.py"))
    rctx.path(Label("//fetch:trust.py"))
    for file in [rctx.attr.go_mod, rctx.attr.go_sum]:
        rctx.file(file.name, rctx.read(file))
    if rctx.os.environ.get("MLC_NO_NETWORK"):
        fail("linters written in Go are not part of a pack: run //tools:lint where there is a network ({})".format(rctx.os.environ["MLC_NO_NETWORK"]))
    rctx.report_progress("downloading Go modules")
    done = rctx.execute([rctx.which("python3"), "-IB", script, "--go", go, "--folder", "."], timeout = 600)
    if done.return_code:
        fail("expected the modules of {} from this machine's Go proxy (GOPROXY): {}".format(rctx.attr.go_mod, done.stderr.strip()))
    rctx.file("BUILD.bazel", """\
package(default_visibility = ["//visibility:public"])

exports_files(["go.mod"])

filegroup(
    name = "sources",
    srcs = ["go.mod", "go.sum"] + glob(["vendor/**"]),
)
""")

_go_modules = repository_rule(
    implementation = _go_modules_impl,
    doc = "Modules of a go.mod, vendored: targets `go.mod` and `sources`.",
    attrs = {
        "go_mod": attr.label(mandatory = True, allow_single_file = True),
        "go_sum": attr.label(mandatory = True, allow_single_file = True),
    },
    environ = [
        "GOFLAGS",
        "GOPROXY",
        "MLC_NO_NETWORK",
    ],
)

def _go_tools_impl(mctx):
    _go_modules(
        name = "go_tools",
        go_mod = "//fetch/go:go.mod",
        go_sum = "//fetch/go:go.sum",
    )
    return mctx.extension_metadata(reproducible = True)

go_tools = module_extension(implementation = _go_tools_impl)
