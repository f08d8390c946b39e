"""`wheel_index`: wheels in a package index of static files."""

load("@rules_python//python:defs.bzl", "py_binary")

_PROGRAM = "//wheels/private:index"

def _wheel_index_impl(ctx):
    folder = ctx.actions.declare_directory(ctx.label.name)
    arguments = ctx.actions.args()
    arguments.add("--quiet")
    arguments.add_all("--folder", [folder], expand_directories = False)
    arguments.add_all(ctx.files.wheels, before_each = "--wheel", expand_directories = False)
    ctx.actions.run(
        outputs = [folder],
        inputs = ctx.files.wheels,
        executable = ctx.executable._index,
        arguments = [arguments],
        mnemonic = "WheelIndex",
        progress_message = "Writing the package index %{output}",
    )
    return [DefaultInfo(files = depset([folder]), runfiles = ctx.runfiles([folder]))]

_wheel_index = rule(
    implementation = _wheel_index_impl,
    attrs = {
        "wheels": attr.label_list(mandatory = True, allow_files = [".whl"], doc = "Finished wheels."),
        "_index": attr.label(default = _PROGRAM, executable = True, cfg = "exec"),
    },
    doc = "Writes the folder; use the macro `wheel_index`.",
)

def wheel_index(name, wheels):
    """A folder that pip and uv install from, and a command that adds the same wheels to another such folder.

    Example:

        wheel_index(
            name = "index",
            wheels = ["//wheels/tvm", "//wheels/tvm_ffi"],
        )

    Args:
        name: the folder, with `simple` and `wheels`. `<name>.add` is the command: `tools/bazel run //wheels:index.add -- --folder=FOLDER`. What is in
            the folder stays.
        wheels: finished wheels (`wheel`).
    """
    _wheel_index(name = name, wheels = wheels)
    py_binary(
        name = name + ".add",
        srcs = [_PROGRAM + ".py"],
        args = ["--wheel=$(rootpath {})".format(wheel) for wheel in wheels],
        data = wheels,
        main = _PROGRAM + ".py",
        deps = [_PROGRAM + "_library"],
    )
