"""The reader of requirements locks for Starlark; fetch/locks.py is the one for Python, and takes exactly the same.

Tests also evaluate it as Python, so it uses only the common core of Starlark and Python.
"""

def normalized(name):
    """A distribution's name as targets have it: lower case, runs of "-", "_" and "." become "_"."""
    result = name.strip().lower().replace("-", "_").replace(".", "_")
    for _ in range(8):
        result = result.replace("__", "_")
    return result

_DIGITS = "0123456789"
_LETTERS = "abcdefghijklmnopqrstuvwxyzABCDEFGHIJKLMNOPQRSTUVWXYZ"
_NAME = _LETTERS + _DIGITS + "._-"
_VERSION = _NAME + "!+"
_PRINTABLE = _VERSION + " \"#$%&'()*,/:;<=>?@[\\]^`{|}~"

def _has_only(text, characters):
    return not text.strip(characters)

def _is_pin(name, version, extras):
    return name and len(name) <= 100 and _has_only(name, _NAME) and version and _has_only(version, _VERSION) and _has_only(extras, _NAME + ",")

def _is_hash(text):
    return len(text) == 64 and _has_only(text, _DIGITS + "abcdef")

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
        line = line.partition(" #")[0].strip(" ")
        if not line or line.startswith("#"):
            continue
        words = [word for word in line.split(" ") if word]
        options = [word for word in words if word.startswith("--hash=")]
        hashes = [word[len("--hash=sha256:"):] for word in options if word.startswith("--hash=sha256:")]
        before = [word for word in words if not word.startswith("--hash=")]
        requirement = "".join(before).partition(";")[0]
        if requirement.startswith("-"):
            return {}, "%s: expected \"name==version --hash=sha256:...\", found the option \"%s\"" % (path, words[0])
        name, _, version = requirement.partition("==")
        name, bracket, extras = name.partition("[")
        closed = not bracket or extras.endswith("]")
        extras = extras[:-1]
        if not closed or not _is_pin(name, version, extras) or not _has_only(line, _PRINTABLE):
            return {}, "%s: expected \"name==version\", found \"%s\"; update the lock (its first lines say how)" % (path, requirement)
        if not hashes:
            return {}, "%s: %s==%s has no --hash=sha256:...; update the lock (its first lines say how)" % (path, name, version)
        if words != before + options or len(hashes) < len(options) or not all([_is_hash(each) for each in hashes]):
            return {}, "%s: %s==%s: expected only hashes of 64 digits after it; update the lock (its first lines say how)" % (path, name, version)
        if normalized(name) in packages:
            return {}, "%s: expected one entry of %s, found two; update the lock (its first lines say how)" % (path, name)
        packages[normalized(name)] = {
            "name": name,
            "version": version,
            "extras": [normalized(extra) for extra in extras.split(",")] if bracket else [],
            "hashes": hashes,
        }
    return packages, None
