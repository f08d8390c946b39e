"""py_wheel, py_wheel_dist and py_package of the rules_python stand-in."""

load(":runtime.bzl", "RUNS_PYTHON")
load(":stand_in.bzl", "COMMON", "check", "run_python")

PyWheelInfo = provider(
    doc = "The output of py_wheel.",
    fields = {
        "name_file": "File: holds the wheel's file name.",
        "wheel": "File: the wheel.",
    },
)

_DATA_FILE_PREFIXES = ["purelib", "platlib", "headers", "scripts", "data"]
_DESCRIPTION_TYPES = {"md": "text/markdown", "rst": "text/x-rst"}

def path_inside_wheel(file):
    """A file's path inside its repository, before prefixes are stripped."""
    path = file.short_path
    return "/".join(path.split("/")[2:]) if path.startswith("../") else path

def _pair(file):
    return "%s;%s" % (path_inside_wheel(file), file.path)

def escaped_distribution(name):
    """The distribution's name in a wheel's file name.

    https://packaging.python.org/specifications/binary-distribution-format/#escaping-and-unicode
    """
    escaped = ""
    for character in name.lower().elems():
        if character in "-_.":
            escaped += "" if escaped.endswith("_") else "_"
        elif character.isalnum():
            escaped += character
        else:
            fail("distribution \"%s\": expected letters, digits, period, underscore and hyphen, found \"%s\"" % (name, character))
    if not escaped or escaped.startswith("_") or escaped.endswith("_"):
        fail("distribution \"%s\": expected a letter or digit at both ends" % name)
    return escaped

def _requirement(requirement, extra):
    specification, semicolon, marker = requirement.partition(";")
    if not semicolon:
        return "Requires-Dist: %s; extra == '%s'" % (requirement, extra)
    return "Requires-Dist: %s; (%s) and extra == '%s'" % (specification.strip(), marker.strip(), extra)

def _metadata(ctx):
    """The lines of METADATA up to the version, in upstream's order."""
    content_type = ctx.attr.description_content_type
    if not content_type and ctx.file.description_file:
        content_type = _DESCRIPTION_TYPES.get(ctx.file.description_file.extension, "text/plain")
    lines = ["Metadata-Version: 2.1", "Name: " + ctx.attr.distribution]
    for key, value in [
        ("Author", ctx.attr.author),
        ("Author-email", ctx.attr.author_email),
        ("Home-page", ctx.attr.homepage),
        ("License", ctx.attr.license),
        ("Description-Content-Type", content_type),
        ("Summary", ctx.attr.summary),
    ]:
        if value:
            lines.append("%s: %s" % (key, value))
    for label, url in sorted(ctx.attr.project_urls.items()):
        if len(label) > 32:
            fail("project_urls: \"%s\" is longer than the 32 characters that PyPI takes" % label)
        lines.append("Project-URL: %s, %s" % (label, url))
    lines += ["Classifier: " + classifier for classifier in ctx.attr.classifiers]
    if ctx.attr.python_requires:
        lines.append("Requires-Python: " + ctx.attr.python_requires)
    lines += ["Requires-Dist: " + requirement for requirement in ctx.attr.requires]
    for extra, requirements in sorted(ctx.attr.extra_requires.items()):
        lines.append("Provides-Extra: " + extra)
        lines += [_requirement(requirement, extra) for requirement in requirements]
    return lines

def _entry_points(ctx):
    groups = dict(ctx.attr.entry_points)
    if ctx.attr.console_scripts:
        scripts = ["%s = %s" % item for item in ctx.attr.console_scripts.items()]
        groups["console_scripts"] = groups.get("console_scripts", []) + scripts
    return "\n\n".join(["\n".join(["[%s]" % group] + sorted(groups[group])) for group in sorted(groups)])

def _placed_files(attribute, kind):
    """Pairs of destination and File of data_files or extra_distinfo_files; a destination with a final slash is a folder."""
    placed = []
    for target, place in attribute.items():
        files = target[DefaultInfo].files.to_list()
        if kind == "data_files" and place.partition("/")[0] not in _DATA_FILE_PREFIXES:
            fail("data_files: \"%s\" starts with none of %s" % (place, ", ".join(_DATA_FILE_PREFIXES)))
        if len(files) != 1 and not (kind == "data_files" and place.endswith("/")):
            fail("%s: expected one file in %s for \"%s\", found %d" % (kind, target.label, place, len(files)))
        placed += [(place + file.basename if place.endswith("/") else place, file) for file in files]
    return placed

def _py_wheel_impl(ctx):
    for attribute in ["abi", "distribution", "python_tag", "version"]:
        if "{" in getattr(ctx.attr, attribute) or "$(" in getattr(ctx.attr, attribute):
            fail("%s = \"%s\": stamps and make variables need --config=upstream, which uses the real rules_python" %
                 (attribute, getattr(ctx.attr, attribute)))
    distribution = escaped_distribution(ctx.attr.distribution)
    name = "-".join([distribution, ctx.attr.version, ctx.attr.python_tag, ctx.attr.abi, ctx.attr.platform]) + ".whl"
    wheel = ctx.actions.declare_file(name)
    name_file = ctx.actions.declare_file(ctx.label.name + ".name")
    ctx.actions.write(name_file, name)

    data_files = _placed_files(ctx.attr.data_files, "data_files")
    extra_distinfo_files = _placed_files(ctx.attr.extra_distinfo_files, "extra_distinfo_files")
    description = [ctx.file.description_file] if ctx.file.description_file else []

    spec = ctx.actions.declare_file(ctx.label.name + ".wheel.json")
    ctx.actions.write(spec, json.encode_indent({
        "abi": ctx.attr.abi,
        "add_path_prefix": ctx.attr.add_path_prefix,
        "compress": ctx.attr.compress,
        "data_files": [(place, file.path) for place, file in data_files],
        "description_file": description[0].path if description else None,
        "entry_points": _entry_points(ctx),
        "escaped_distribution": distribution,
        "extra_distinfo_files": [(place, file.path) for place, file in extra_distinfo_files],
        "label": str(ctx.label),
        "metadata": _metadata(ctx),
        "platform": ctx.attr.platform,
        "python_tag": ctx.attr.python_tag,
        "strip_path_prefixes": ctx.attr.strip_path_prefixes,
        "version": ctx.attr.version,
    }))

    # Bazel writes the list when the action runs, so it can list the files in directories.
    file_list = ctx.actions.declare_file(ctx.label.name + ".files.txt")
    lines = ctx.actions.args()
    lines.set_param_file_format("multiline")
    lines.add_all(ctx.files.deps, map_each = _pair, uniquify = True)
    ctx.actions.write(file_list, lines)

    arguments = ctx.actions.args()
    arguments.add("--spec", spec)
    arguments.add("--files", file_list)
    arguments.add("--output", wheel)
    run_python(
        ctx,
        script = ctx.file._wheelmaker,
        arguments = [arguments],
        inputs = depset(
            [spec, file_list] + description + ctx.files.deps + [file for _, file in data_files + extra_distinfo_files],
        ),
        outputs = [wheel],
        mnemonic = "PyWheel",
        progress_message = "Building wheel %{label}",
    )
    return [
        DefaultInfo(files = depset([wheel]), runfiles = ctx.runfiles([wheel])),
        PyWheelInfo(name_file = name_file, wheel = wheel),
    ]

_ATTRS = {
    "abi": attr.string(default = "none", doc = "ABI tag."),
    "add_path_prefix": attr.string(doc = "Prefix of every path, added after stripping."),
    "author": attr.string(),
    "author_email": attr.string(),
    "classifiers": attr.string_list(),
    "compress": attr.bool(default = True, doc = "Whether to deflate the files (level 6)."),
    "console_scripts": attr.string_dict(doc = "Deprecated upstream in favour of entry_points."),
    "data_files": attr.label_keyed_string_dict(allow_files = True, doc = "Files for the .data folder, and their paths in it."),
    "deps": attr.label_list(doc = "Targets whose files go into the wheel: py_library, filegroup, directories."),
    "description_content_type": attr.string(doc = "If empty, follows from the extension of description_file."),
    "description_file": attr.label(allow_single_file = True),
    "distribution": attr.string(mandatory = True, doc = "The project's name."),
    "entry_points": attr.string_list_dict(doc = "Group to lines, e.g. {\"console_scripts\": [\"a = b:c\"]}."),
    "extra_distinfo_files": attr.label_keyed_string_dict(allow_files = True, doc = "Files for .dist-info, and their names in it."),
    "extra_requires": attr.string_list_dict(doc = "Extra to requirements."),
    "homepage": attr.string(),
    "license": attr.string(),
    "platform": attr.string(default = "any", doc = "Platform tag; any tag but \"any\" makes a platlib wheel."),
    "project_urls": attr.string_dict(),
    "python_requires": attr.string(),
    "python_tag": attr.string(default = "py3"),
    "requires": attr.string_list(),
    "strip_path_prefixes": attr.string_list(doc = "The first matching prefix is stripped from a file's path."),
    "summary": attr.string(),
    "version": attr.string(mandatory = True, doc = "In the normal form of PEP 440."),
}

py_wheel_rule = rule(
    implementation = _py_wheel_impl,
    attrs = _ATTRS | RUNS_PYTHON | {
        "_wheelmaker": attr.label(default = ":wheelmaker.py", allow_single_file = True),
    },
    doc = "Builds a wheel; use the macro py_wheel.",
)

def _py_wheel_dist_impl(ctx):
    wheel = ctx.attr.wheel[PyWheelInfo].wheel
    folder = ctx.actions.declare_directory(ctx.attr.out)
    run_python(
        ctx,
        script = ctx.file._copy,
        arguments = [wheel.path, "%s/%s" % (folder.path, wheel.basename)],
        inputs = depset([wheel]),
        outputs = [folder],
        mnemonic = "PyWheelDistDir",
    )
    return DefaultInfo(files = depset([folder]), runfiles = ctx.runfiles([folder]))

py_wheel_dist = rule(
    implementation = _py_wheel_dist_impl,
    attrs = RUNS_PYTHON | {
        "out": attr.string(mandatory = True, doc = "The folder's name."),
        "wheel": attr.label(mandatory = True, providers = [PyWheelInfo]),
        "_copy": attr.label(default = ":copy.py", allow_single_file = True),
    },
    doc = "Puts a wheel into a separate folder, as package upload tools expect.",
)

def py_wheel(name, **kwargs):
    """Builds a wheel from the files of its deps, and `<name>.dist`, a folder that holds the wheel.

    Example:
        py_wheel(
            name = "greeting",
            distribution = "greeting",
            version = "1.0",
            deps = [":greeting_library"],
        )

    Args:
        name: the target's name.
        **kwargs: upstream's attributes, see _ATTRS; others are an error.
    """
    check("@rules_python//python:packaging.bzl%py_wheel", name, kwargs, _ATTRS.keys() + COMMON)
    py_wheel_rule(name = name, **kwargs)
    py_wheel_dist(
        name = name + ".dist",
        wheel = name,
        out = name + "_dist",
        tags = kwargs.get("tags", []) + ["manual"],
        **{key: kwargs[key] for key in COMMON if key in kwargs and key != "tags"}
    )

def _py_package_impl(ctx):
    files = depset(transitive = [
        depset(transitive = [dep[DefaultInfo].files, dep[DefaultInfo].default_runfiles.files, dep[DefaultInfo].data_runfiles.files])
        for dep in ctx.attr.deps
    ])
    prefixes = [package.replace(".", "/") for package in ctx.attr.packages]
    if not prefixes:
        return DefaultInfo(files = files)
    return DefaultInfo(files = depset([
        file
        for file in files.to_list()
        if [prefix for prefix in prefixes if path_inside_wheel(file).startswith(prefix)]
    ]))

py_package = rule(
    implementation = _py_package_impl,
    attrs = {
        "deps": attr.label_list(),
        "packages": attr.string_list(doc = "Only files below these packages; empty for all."),
    },
    doc = "All files that its deps need at run time, for py_wheel.",
)
