"""`python_environment`: a folder of installed wheels; `install_wheels`: the action behind it, for rules that need some of its files."""

load(":finished_wheel.bzl", "WheelInfo")

PythonEnvironmentInfo = provider(
    doc = "The wheels of a python_environment, from which other rules install chosen files (`install_wheels`).",
    fields = {
        "exclude": "List of globs: paths that the environment omits.",
        "finished": "List of .whl files.",
        "tool": "FilesToRunProvider: the program that installs them.",
        "unversioned": "List of WheelInfo: wheels of this build.",
    },
)

def install_wheels(ctx, folder, environment, include = [], exclude = []):
    """Declares the action that installs an environment's wheels.

    Args:
        ctx: of the rule.
        folder: the declared directory to write.
        environment: a PythonEnvironmentInfo.
        include: globs of the only paths to take; `*` also matches `/`. Each must match a file.
        exclude: globs of paths to omit. Each must match a file.
    """
    arguments = ctx.actions.args()
    arguments.add_all("--to", [folder], expand_directories = False)
    arguments.add_all(include, before_each = "--include")
    arguments.add_all(environment.exclude + exclude, before_each = "--exclude")
    for wheel in environment.unversioned:
        arguments.add_all("--unversioned", [wheel.unversioned, wheel.identity])
    arguments.add_all(environment.finished)
    ctx.actions.run(
        outputs = [folder],
        inputs = environment.finished + [file for wheel in environment.unversioned for file in (wheel.unversioned, wheel.identity)],
        executable = environment.tool,
        arguments = [arguments],
        mnemonic = "InstallWheels",
        progress_message = "Installing {} wheels into %{{output}}".format(len(environment.finished) + len(environment.unversioned)),
    )

def _python_environment_impl(ctx):
    environment = PythonEnvironmentInfo(
        exclude = ctx.attr.exclude,
        finished = [
            file
            for target in ctx.attr.wheels
            if WheelInfo not in target
            for file in target[DefaultInfo].files.to_list()
            if file.extension == "whl"
        ],
        tool = ctx.attr._install_wheels[DefaultInfo].files_to_run,
        unversioned = [target[WheelInfo] for target in ctx.attr.wheels if WheelInfo in target],
    )
    if not environment.finished and not environment.unversioned:
        fail("{}: `wheels` has no .whl file".format(ctx.label))
    folder = ctx.actions.declare_directory(ctx.label.name)
    install_wheels(ctx, folder, environment)
    return [
        DefaultInfo(files = depset([folder]), runfiles = ctx.runfiles([folder])),
        environment,
    ]

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
        "exclude": attr.string_list(doc = "Globs of paths to omit; `*` also matches `/`. Each must match a file."),
        "wheels": attr.label_list(mandatory = True, allow_files = True, doc = "Wheels to install, without their requirements."),
        "_install_wheels": attr.label(default = "//wheels/private:install_wheels", executable = True, cfg = "exec"),
    },
    provides = [PythonEnvironmentInfo],
)
