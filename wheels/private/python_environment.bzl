"""`python_environment`: a folder of installed wheels."""

load(":finished_wheel.bzl", "WheelInfo")

def _python_environment_impl(ctx):
    folder = ctx.actions.declare_directory(ctx.label.name)
    arguments = ctx.actions.args()
    arguments.add_all("--to", [folder], expand_directories = False)
    arguments.add_all(ctx.attr.exclude, before_each = "--exclude")
    inputs = []
    for target in ctx.attr.wheels:
        if WheelInfo in target:
            ours = [target[WheelInfo].unversioned, target[WheelInfo].identity]
            arguments.add_all("--unversioned", ours)
            inputs += ours
        else:
            inputs += [file for file in target[DefaultInfo].files.to_list() if file.extension == "whl"]
    wheels = [file for file in inputs if file.extension == "whl"]
    if not wheels:
        fail("{}: `wheels` has no .whl file".format(ctx.label))
    ours = [target[WheelInfo].unversioned for target in ctx.attr.wheels if WheelInfo in target]
    arguments.add_all([file for file in wheels if file not in ours])
    ctx.actions.run(
        outputs = [folder],
        inputs = inputs,
        executable = ctx.executable._install_wheels,
        arguments = [arguments],
        mnemonic = "InstallWheels",
        progress_message = "Installing {} wheels into %{{label}}".format(len(wheels)),
    )
    return [DefaultInfo(files = depset([folder]), runfiles = ctx.runfiles([folder]))]

python_environment = rule(
    implementation = _python_environment_impl,
    doc = """A folder of installed wheels, like that of `pip install --target`. Tests put it on sys.path; images use it as a layer.

Example:

    python_environment(
        name = "test_dependencies",
        wheels = ["@pypi//pytest:whl", "@pypi//pluggy:whl"],
    )
""",
    attrs = {
        "exclude": attr.string_list(doc = "Globs of paths to omit; `*` also matches `/`."),
        "wheels": attr.label_list(mandatory = True, allow_files = True, doc = "Wheels to install, without their requirements."),
        "_install_wheels": attr.label(default = "//wheels/private:install_wheels", executable = True, cfg = "exec"),
    },
)
