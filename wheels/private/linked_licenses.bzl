"""`linked_licenses`: the licences of everything linked into the libraries of a wheel, in one text."""

def _linked_licenses_impl(ctx):
    output = ctx.actions.declare_file(ctx.label.name + "/THIRD_PARTY_LICENSES.txt")
    arguments = ctx.actions.args()
    arguments.add("--output", output)
    for label, name in ctx.attr.parts.items():
        for file in label[DefaultInfo].files.to_list():
            arguments.add("--part", "{}={}".format(name, file.path))
    for package, name in ctx.attr.packages.items():
        debs = [file for file in ctx.files.debs if file.basename.startswith(package + "_")]
        if len(debs) != 1:
            fail("{}: expected one package {} in `debs`, found {}: add it to the set licenses of locks/debian.packages.json".format(ctx.label, package, len(debs)))
        arguments.add("--part", "{}={}".format(name, debs[0].path))
    arguments.add_all(ctx.files.crates)
    ctx.actions.run(
        outputs = [output],
        inputs = ctx.files.parts + ctx.files.crates + ctx.files.debs,
        executable = ctx.executable._collect_licenses,
        arguments = [arguments],
        mnemonic = "LinkedLicenses",
        progress_message = "Collecting licences of %{label}",
    )
    return [DefaultInfo(files = depset([output]))]

linked_licenses = rule(
    implementation = _linked_licenses_impl,
    doc = """The licences of everything linked into a wheel's libraries, in one text; `wheel` puts it into .dist-info/licenses.

release/private/licenses.py finds the text of a locked input by its name, which must be the name of the part or end it in parentheses.
""",
    attrs = {
        "crates": attr.label_list(allow_files = [".crate"], doc = "Rust crates, which contribute all their licence files."),
        "debs": attr.label_list(
            allow_files = [".deb"],
            default = ["@debian_licenses//:packages"],
            doc = "The .deb files of `packages`.",
        ),
        "packages": attr.string_dict(doc = "Debian package in `debs`, which contributes its copyright file → name of the part."),
        "parts": attr.label_keyed_string_dict(allow_files = True, doc = "Licence file, or header that begins with one → name of the part."),
        "_collect_licenses": attr.label(default = "//wheels/private:collect_licenses", executable = True, cfg = "exec"),
    },
)
