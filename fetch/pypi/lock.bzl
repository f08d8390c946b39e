"""The reader of requirements locks for Starlark; fetch/locks.py is the one for Python.

Tests also evaluate it as Python, so it uses only the common core of Starlark and Python.
"""

def normalized(name):
    """A distribution's name as targets have it: lower case, runs of "-", "_" and "." become "_"."""
    result = name.strip().lower().replace("-", "_").replace(".", "_")
    for _ in range(8):
        result = result.replace("__", "_")
    return result

def parse_lock(text, path):
    """Reads a lock as `pip-compile --generate-hashes` writes it.

    Args:
        text: the lock's content.
        path: its name for errors.

    Returns:
        A pair: dict of normalized name to {"name", "version", "extras", "hashes"}, and an error or None.
    """
    packages = {}
    for line in text.replace("\\\n", " ").split("\n"):
        line = line.partition(" #")[0].strip()
        if not line or line.startswith("#"):
            continue
        words = [word for word in line.split(" ") if word]
        hashes = [word[len("--hash=sha256:"):] for word in words if word.startswith("--hash=sha256:")]
        requirement = "".join([word for word in words if not word.startswith("--hash=")]).partition(";")[0]
        if requirement.startswith("-"):
            return {}, "%s: expected \"name==version --hash=sha256:...\", found the option \"%s\"" % (path, words[0])
        name, equals, version = requirement.partition("==")
        name, bracket, extras = name.partition("[")
        if not equals or not version:
            return {}, "%s: expected \"name==version\", found \"%s\"; update the lock (its first lines say how)" % (path, requirement)
        if not hashes:
            return {}, "%s: %s==%s has no --hash=sha256:...; update the lock (its first lines say how)" % (path, name, version)
        packages[normalized(name)] = {
            "name": name,
            "version": version,
            "extras": [normalized(extra) for extra in extras.rstrip("]").split(",")] if bracket else [],
            "hashes": hashes,
        }
    return packages, None
