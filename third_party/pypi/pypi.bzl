"""Downloads of PyPI files by hash, through Bazel's downloader, from the index that this machine's pip uses."""

_SIMPLE_JSON = "application/vnd.pypi.simple.v1+json"

def pypi_index(rctx):
    """Returns the simple index address of this machine (no trailing slash), as `tools/launcher/pypi.py` finds it."""
    python = rctx.which("python3")
    if not python:
        fail("Python 3 is not on PATH. It is needed to find the package index; install it (Debian: apt-get install python3).")
    tool = rctx.path(Label("//tools/launcher:pypi.py"))
    result = rctx.execute([python, tool, "index-url"])
    if result.return_code:
        fail(result.stderr.strip())
    return json.decode(result.stdout).rstrip("/")

def pypi_download(rctx, project, hashes, index = None):
    """Downloads the one file of a PyPI project that has one of the given hashes.

    The index page is asked for by its JSON form (PEP 691); the file goes through Bazel's downloader, so that
    `--repository_cache` and `--distdir` work.

    Args:
        rctx: the repository context.
        project: normalized project name, e.g. "apache-tvm".
        hashes: accepted sha256 hashes, lower-case hex.
        index: simple index address; default: this machine's.

    Returns:
        The file's path, under its own name, in the repository.
    """
    index = index or pypi_index(rctx)
    page = "{}/{}/".format(index, project)
    listing = "{}.index.json".format(project)
    answer = rctx.download(page, listing, headers = {"Accept": _SIMPLE_JSON}, allow_fail = True)
    if not answer.success:
        fail("{}: the package index does not answer. Check the network, or set PIP_INDEX_URL to a mirror that has it.".format(project))
    files = json.decode(rctx.read(listing))["files"]
    rctx.delete(listing)
    for file in files:
        digest = file["hashes"].get("sha256")
        if digest in hashes:
            url = file["url"]
            if "://" not in url:
                fail("{}: the index gives a relative address, {}; set PIP_INDEX_URL to one with absolute addresses.".format(project, url))
            rctx.download(url.split("#")[0], file["filename"], sha256 = digest)
            return rctx.path(file["filename"])
    fail("{}: no file in the package index has a locked hash. Expected one of: {}. Found: {}. Run tools/bazel run //locks:update_requirements (or //locks:update_sources).".format(
        project,
        ", ".join(hashes),
        ", ".join([file["filename"] for file in files][-10:]) or "nothing",
    ))

def locked_requirement(rctx, lock, project):
    """Returns the sha256 hashes that a requirements lock accepts for a project.

    Args:
        rctx: the repository context.
        lock: Label of a pip requirements file with `name==version --hash=sha256:…` entries.
        project: normalized project name.
    """
    text = rctx.read(lock).replace("\\\n", " ")
    for line in text.splitlines():
        words = line.split("#")[0].split()
        if words and words[0].split("==")[0] == project:
            hashes = [word[len("--hash=sha256:"):] for word in words if word.startswith("--hash=sha256:")]
            if hashes:
                return hashes
            fail("{}: no --hash in {}. Run tools/bazel run //locks:update_requirements.".format(project, lock))
    fail("{}: not in {}. Add it to locks/requirements.in and run tools/bazel run //locks:update_requirements.".format(project, lock))
