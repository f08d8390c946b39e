"""Choosing wheels of a requirements lock; also evaluated as Python by tests/registry.

Only the common core of Starlark and Python is used, no module of either.
"""

load("@@//fetch/pypi:lock.bzl", "normalized")

def machine_of(extra_pip_args):
    """The processor that wheels are for: that of the platforms that pip is told to download for, else x86_64."""
    platforms = [word[len("--platform="):] for word in extra_pip_args if word.startswith("--platform=")]
    return "aarch64" if platforms and platforms[0].endswith("_aarch64") else "x86_64"

def rank(filename, minor, machine = "x86_64"):
    """How well a wheel suits CPython 3.<minor> on 64-bit Linux with glibc: 0 not at all, higher is better."""
    if not filename.endswith(".whl"):
        return 0
    parts = filename[:-len(".whl")].split("-")
    if len(parts) < 5:
        return 0
    best = 0
    for platform in parts[-1].split("."):
        native = platform.endswith("_" + machine) and (platform.startswith("manylinux") or platform.startswith("linux"))
        if platform != "any" and not native:
            continue
        for python in parts[-3].split("."):
            if python == "cp3%d" % minor:
                best = max(best, 5 if native else 4)
            elif python.startswith("cp3") and "abi3" in parts[-2].split(".") and python[3:].isdigit() and int(python[3:]) <= minor:
                best = max(best, 3)
            elif python in ["py3", "py3%d" % minor]:
                best = max(best, 2 if native else 1)
    return best

def is_wheel_of(filename, package):
    """Whether a name from outside is that of a wheel of this package at its locked version.

    https://packaging.python.org/specifications/binary-distribution-format/#file-name-convention
    """
    parts = filename[:-len(".whl")].split("-") if filename.endswith(".whl") else []
    build = parts[2][:1] if len(parts) == 6 else "0"
    if len(parts) not in [5, 6] or not build.isdigit():
        return False
    return normalized(parts[0]) == normalized(package["name"]) and parts[1].lower() == package["version"].lower()

def filename_of(dist_info, wheel):
    """The file name that a wheel's own metadata stand for.

    Args:
        dist_info: the name of its .dist-info folder.
        wheel: the text of WHEEL in it.
    """
    tags = [line[len("Tag:"):].strip().split("-") for line in wheel.split("\n") if line.startswith("Tag:")]
    sets = [".".join(list({tag[part]: None for tag in tags}.keys())) for part in range(3)]
    build = [line[len("Build:"):].strip() for line in wheel.split("\n") if line.startswith("Build:")]
    return "-".join([dist_info[:-len(".dist-info")]] + build[:1] + sets) + ".whl"

def is_same_wheel(filename, other):
    """Whether two names of wheels mean the same: the order of tags, and how the name is written, are free."""

    def meaning(name):
        parts = name[:-len(".whl")].split("-")
        return [normalized(parts[0])] + parts[1:-3] + [sorted(each.split(".")) for each in parts[-3:]]

    return meaning(filename) == meaning(other)

def choose(package, files, minor, machine = "x86_64"):
    """Picks the file of a package that the lock allows and that suits the interpreter best.

    Args:
        package: the package's entry of parse_lock.
        files: what the index lists: dicts with "filename", "url" and "hashes".
        minor: 11 for Python 3.11.
        machine: the processor.

    Returns:
        A pair: the file's dict or None, and an error or None.
    """
    what = "%s==%s" % (package["name"], package["version"])
    locked = [file for file in files if file["hashes"].get("sha256") in package["hashes"]]

    # The name decides what the file is called here and in what is shipped, and the index is anyone's.
    suited = [file for file in locked if rank(file["filename"], minor, machine) and is_wheel_of(file["filename"], package)]
    for file in suited:
        for other in suited:
            if file["filename"] == other["filename"] and file["hashes"]["sha256"] != other["hashes"]["sha256"]:
                return None, "%s: expected one file %s in the index, found two: set PIP_INDEX_URL to another index" % (what, file["filename"])
    if suited:
        return sorted(suited, key = lambda file: (-rank(file["filename"], minor, machine), file["filename"]))[0], None
    if not files:
        return None, "%s: the index has no file of this package" % what
    if locked:
        return None, "%s: the lock allows only %s, and none of these is a wheel of it for CPython 3.%d on %s Linux" % (
            what,
            ", ".join([file["filename"] for file in locked]),
            minor,
            machine,
        )
    version = [file for file in files if ("-%s-" % package["version"]) in file["filename"]] or files
    return None, "%s: expected a file with sha256 %s, found in the index: %s; if the change is intended, update the lock (its first lines say how)" % (
        what,
        " or ".join(package["hashes"]),
        ", ".join(["%s %s" % (file["filename"], file["hashes"].get("sha256", "without sha256")) for file in version[:20]]),
    )

def required(metadata, extras, locked):
    """The packages of the lock that a wheel depends on.

    The lock is made for one platform, so that a requirement whose marker does not hold there is not in it; only
    the markers that ask for an extra are looked at.

    Args:
        metadata: the text of METADATA.
        extras: the extras that the lock asks of this wheel, normalized.
        locked: the normalized names in the lock.

    Returns:
        Sorted normalized names.
    """
    names = {}
    for line in metadata.partition("\n\n")[0].split("\n"):
        if not line.startswith("Requires-Dist:"):
            continue
        requirement, _, marker = line[len("Requires-Dist:"):].partition(";")
        name = requirement.strip()
        for stop in [" ", "[", "(", "<", ">", "=", "!", "~", "@"]:
            name = name.partition(stop)[0]
        wanted = "extra" not in marker
        for extra in extras:
            for quote in ["'", "\""]:
                if quote + extra + quote in normalized(marker):
                    wanted = True
        if wanted and normalized(name) in locked:
            names[normalized(name)] = True
    return sorted(names)
