"""Downloads of PyPI files by hash, through Bazel's downloader, from the index that this machine's pip uses."""

load(":lock.bzl", "normalized", "parse_lock")

# Decides which index this machine uses.
_PYPI = Label("//fetch/pypi:index.py")

def pypi_files(rctx, project, index = None):
    """The files of a PyPI project, as the index lists them.

    Args:
        rctx: the repository context.
        project: the project's name.
        index: what `pypi_index` returned, to be used if this machine's pip is not configured; by default that is asked again.

    Returns:
        A pair: a list of dicts with at least "filename", "url" and "hashes", and "auth" where the user has a login; and an error or
        None.
    """
    return _ask(rctx, ["files", project] + (["--default-index", index] if index else []))

def pypi_index(rctx):
    """The address of the simple index that this machine's pip uses; a pair of address and error, one of them None."""
    return _ask(rctx, ["index-url"])

def _ask(rctx, arguments):
    python = rctx.which("python3")
    if not python:
        fail("python3 is not on PATH: it is asked which Python package index this machine uses; install python3")
    result = rctx.execute([python, "-IB", rctx.path(_PYPI)] + arguments)
    if result.return_code:
        # With tools/bazel --airgap nothing is downloaded: that is the reason, not the index.
        return None, rctx.os.environ.get("MLC_NO_NETWORK") or result.stderr.strip()
    return json.decode(result.stdout), None

def from_repository_cache(rctx, hashes, name):
    """Takes a file with one of these sha256 hashes from the repository cache, as `name`; returns whether it was there."""
    for sha256 in hashes:
        # Bazel looks in the cache, by hash, before it tries the address.
        if rctx.download("file:///dev/null", name, sha256 = sha256, allow_fail = True).success:
            return True
    return False

def pypi_fetch(rctx, what, file, name):
    """Downloads one file of those that `pypi_files` lists, by its hash.

    Args:
        rctx: the repository context.
        what: names the file where nothing may be downloaded.
        file: its entry.
        name: what to call it here. The index must not choose: it could name another file of the repository.
    """
    no_network = rctx.os.environ.get("MLC_NO_NETWORK")
    done = rctx.download(
        file["url"],
        name,
        sha256 = file["hashes"]["sha256"],
        allow_fail = bool(no_network),
        auth = {file["url"]: file["auth"]} if "auth" in file else {},
    )
    if not done.success:
        fail("{} (sha256 {}): {}".format(what, file["hashes"]["sha256"], no_network))

def pypi_download(rctx, project, hashes, update):
    """Downloads the one file of a PyPI project that has one of the given hashes, under a name made of project and hash.

    It goes through Bazel's downloader, so that `--repository_cache` and `--distdir` work. When the index does not answer, the
    repository cache alone will do.

    Args:
        rctx: the repository context.
        project: normalized project name, e.g. "apache-tvm".
        hashes: accepted sha256 hashes, lower-case hex.
        update: the command that updates the lock with these hashes, for errors.

    Returns:
        The file's path in the repository.
    """
    files, error = pypi_files(rctx, project)
    if error:
        for sha256 in hashes:
            if from_repository_cache(rctx, [sha256], _name(project, sha256)):
                return rctx.path(_name(project, sha256))
        fail("{} (sha256 {}) is not in the repository cache, and: {}".format(project, " or ".join(hashes), error))
    for file in files:
        digest = file["hashes"].get("sha256")
        if digest in hashes:
            pypi_fetch(rctx, project, file, _name(project, digest))
            return rctx.path(_name(project, digest))
    if rctx.os.environ.get("MLC_NO_NETWORK"):
        fail("{} (sha256 {}): {}".format(project, " or ".join(hashes), rctx.os.environ["MLC_NO_NETWORK"]))
    fail("{}: expected a file with sha256 {}, found in the index: {}. If the change is intended: {}".format(
        project,
        " or ".join(hashes),
        ", ".join(["{} {}".format(file["filename"], file["hashes"].get("sha256")) for file in files[-10:]]) or "nothing",
        update,
    ))

def _name(project, sha256):
    return "{}-{}.archive".format(project, sha256)

def locked_requirement(rctx, lock, project):
    """Returns the sha256 hashes that a requirements lock accepts for a project.

    Args:
        rctx: the repository context.
        lock: Label of a pip requirements file with `name==version --hash=sha256:…` entries.
        project: normalized project name.
    """
    packages, error = parse_lock(rctx.read(lock), str(lock))
    if error:
        fail(error)
    if normalized(project) not in packages:
        fail("{}: not in {}. Add it to locks/requirements.in and run tools/bazel run //locks:update_requirements".format(project, lock))
    return packages[normalized(project)]["hashes"]
