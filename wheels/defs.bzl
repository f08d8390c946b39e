"""Rules around wheels. Public: `python_environment`, `linked_licenses`; and the wheels that mlc-llm's engine needs, for //wheels and its tests."""

load("//wheels/private:linked_licenses.bzl", _linked_licenses = "linked_licenses")

linked_licenses = _linked_licenses

MLC_LLM_DEPENDENCIES = ["@pypi//{}:whl".format(name) for name in [
    "annotated_doc",
    "annotated_types",
    "anyio",
    "certifi",
    "charset_normalizer",
    "click",
    "fastapi",
    "h11",
    "idna",
    "opentelemetry_api",
    "psutil",
    "pydantic",
    "pydantic_core",
    "requests",
    "safetensors",
    "shortuuid",
    "starlette",
    "tqdm",
    "typing_inspection",
    "urllib3",
    "uvicorn",
]]

def _python_environment_impl(ctx):
    folder = ctx.actions.declare_directory(ctx.label.name)
    wheels = [file for file in ctx.files.wheels if file.extension == "whl"]
    if not wheels:
        fail("{}: `wheels` has no .whl file".format(ctx.label))
    arguments = ctx.actions.args()
    arguments.add_all("--to", [folder], expand_directories = False)
    arguments.add_all(ctx.attr.exclude, before_each = "--exclude")
    arguments.add_all(wheels)
    ctx.actions.run(
        outputs = [folder],
        inputs = wheels,
        executable = ctx.executable._install_wheels,
        arguments = [arguments],
        mnemonic = "InstallWheels",
        progress_message = "Installing {} wheels into %{{label}}".format(len(wheels)),
    )
    return [DefaultInfo(files = depset([folder]), runfiles = ctx.runfiles([folder]))]

python_environment = rule(
    implementation = _python_environment_impl,
    doc = """A folder of installed wheels, as `pip install --target` makes it: tests put it on sys.path, images take it as a layer.

Example:

    python_environment(
        name = "test_dependencies",
        wheels = ["@pypi//pytest:whl", "@pypi//pluggy:whl"],
    )
""",
    attrs = {
        "exclude": attr.string_list(doc = "Globs of paths to leave out; `*` matches `/` too."),
        "wheels": attr.label_list(mandatory = True, allow_files = True, doc = "Wheels to install; nothing is added to them."),
        "_install_wheels": attr.label(default = "//wheels/private:install_wheels", executable = True, cfg = "exec"),
    },
)
