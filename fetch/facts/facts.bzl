"""`repository_facts`: each module extension records which entries of the locks its repositories hold.

The wheels' bills of materials read it (//wheels/private:made_of.bzl), so that nothing repeats what an extension declares.
"""

def locked(entries = [], sets = [], needs = []):
    """What one repository holds.

    Args:
        entries: pairs of ecosystem (fetch/locks.py) and name.
        sets: pairs of ecosystem and set.
        needs: what a build must have to take it: "cuda" (--config=cuda), "sources" (sources of mlc-llm). Empty: every build may take it.

    Returns:
        A dict for `repository_facts`.
    """
    for need in needs:
        if need not in ["cuda", "sources"]:
            fail("needs: expected cuda or sources, found {}".format(need))
    return {"entries": entries, "needs": needs, "sets": sets}

def _repository_facts_impl(rctx):
    lines = ["    Label(\"@{}//:BUILD.bazel\").workspace_name: {},".format(name, repr(json.decode(facts))) for name, facts in sorted(rctx.attr.facts.items())]
    rctx.file("BUILD.bazel", "# See facts.bzl.\n")
    rctx.file("facts.bzl", "\n".join([
        "\"\"\"Canonical name of a repository → the entries and sets of the locks that it holds, and what a build needs to take it.\"\"\"",
        "",
        "REPOSITORIES = {",
    ] + lines + ["}", ""]))

_repository_facts = repository_rule(
    implementation = _repository_facts_impl,
    doc = "A repository with `facts.bzl`.",
    attrs = {"facts": attr.string_dict(doc = "Repository → JSON of what `locked` returned.")},
)

def repository_facts(name, facts):
    """Writes down what the repositories of a module extension hold.

    Example:

        repository_facts(
            name = "pypi_facts",
            facts = {"tvm": locked([("pypi", "apache-tvm"), ("source", "tilelang")])},
        )

    Args:
        name: the repository with `facts.bzl`, made by the same extension.
        facts: the extension's name of a repository → what `locked` returned.
    """
    _repository_facts(name = name, facts = {repository: json.encode(each) for repository, each in facts.items()})
