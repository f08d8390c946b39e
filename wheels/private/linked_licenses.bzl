"""`linked_licenses`: one text of the licences of all that is linked into the libraries of a wheel."""

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
    doc = """One text of the licences of all that is linked into a library, for `extra_distinfo_files` of its wheel.

A name that is an input's in the locks, alone or in parentheses at its end, is how release/private/licenses.py finds that input's text.
""",
    attrs = {
        "crates": attr.label_list(allow_files = [".crate"], doc = "Rust crates; every licence file in them counts."),
        "debs": attr.label_list(
            allow_files = [".deb"],
            default = ["@debian_licenses//:packages"],
            doc = "Where `packages` are looked for.",
        ),
        "packages": attr.string_dict(doc = "Debian package of `debs`, whose copyright file counts → name of what it is of."),
        "parts": attr.label_keyed_string_dict(allow_files = True, doc = "Licence file, or header that begins with one → name of what it is of."),
        "_collect_licenses": attr.label(default = "//wheels/private:collect_licenses", executable = True, cfg = "exec"),
    },
)
