"""Downloads of PyPI files by hash, through Bazel's downloader, from the index that this machine's pip uses."""

# Which index this machine uses is decided in one place, the launcher's.
_PYPI = Label("//tools/launcher:pypi.py")

def pypi_download(rctx, project, hashes):
    """Downloads the one file of a PyPI project that has one of the given hashes.

    It goes through Bazel's downloader, so that `--repository_cache` and `--distdir` work.

    Args:
        rctx: the repository context.
        project: normalized project name, e.g. "apache-tvm".
        hashes: accepted sha256 hashes, lower-case hex.

    Returns:
        The file's path, under its own name, in the repository.
    """
    python = rctx.which("python3")
    if not python:
        fail("python3 is not on PATH: it is asked which Python package index this machine uses; install python3")
    result = rctx.execute([python, "-B", rctx.path(_PYPI), "files", project])
    if result.return_code:
        fail(result.stderr.strip())
    files = json.decode(result.stdout)
    for file in files:
        digest = file["hashes"].get("sha256")
        if digest in hashes:
            rctx.download(file["url"], file["filename"], sha256 = digest)
            return rctx.path(file["filename"])
    fail("{}: no file in the package index has a locked hash. Expected one of: {}. Found: {}. Run tools/bazel run //locks:update_requirements or //locks:update_sources.".format(
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
        words = [word for word in line.split("#")[0].split(" ") if word]
        if words and words[0].split("==")[0] == project:
            hashes = [word[len("--hash=sha256:"):] for word in words if word.startswith("--hash=sha256:")]
            if hashes:
                return hashes
            fail("{}: no --hash in {}. Run tools/bazel run //locks:update_requirements.".format(project, lock))
    fail("{}: not in {}. Add it to locks/requirements.in and run tools/bazel run //locks:update_requirements.".format(project, lock))
