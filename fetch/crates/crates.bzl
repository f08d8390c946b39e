"""Downloads of Rust crates by hash, through Bazel's downloader, from the registry that this machine's cargo uses."""

_REGISTRY = Label("//fetch/crates:registry.py")
_CARGO = Label("@debian_rust//:usr/bin/cargo")

def download_crates(rctx, crates):
    """Downloads crates into the repository's folder, all at once.

    Bazel looks in the repository cache first, by hash; when no registry answers, that alone will do.

    Args:
      rctx: the repository context.
      crates: part of the lock: a list of structs of name, version, sha256.

    Returns:
      The files' names, <name>-<version>.crate, in the order of `crates`.
    """
    python = rctx.which("python3")
    if not python:
        fail("python3 is not on PATH: it asks cargo which registry this machine uses; install python3")
    problem = rctx.os.environ.get("MLC_NO_NETWORK")
    asked = None
    if not problem:
        command = [python, "-IB", rctx.path(_REGISTRY), "--cargo", rctx.path(_CARGO), "--crate"]
        rctx.report_progress("asking cargo for its registry")
        asked = rctx.execute(command + ["{}@{}@{}".format(crate["name"], crate["version"], crate["sha256"]) for crate in crates])
        problem = asked.stderr.strip() if asked.return_code else None
    places = {_file(crate): {"url": "file:///dev/null"} for crate in crates} if problem else json.decode(asked.stdout)
    failed = _failed(rctx, crates, places)
    if failed and problem:
        fail("{} (sha256 {}) is not in the repository cache, and: {}".format(_file(failed[0]), failed[0]["sha256"], problem))
    if failed:
        fail(("{}: expected a file with sha256 {} at {}, found none or another. Do not build on another: find out why; " +
              "if the change is intended: tools/bazel run //locks:update_crates").format(_file(failed[0]), failed[0]["sha256"], places[_file(failed[0])]["url"]))
    return [_file(crate) for crate in crates]

def _file(crate):
    return "{}-{}.crate".format(crate["name"], crate["version"])

def _failed(rctx, crates, places):
    """Downloads crates from these places (file → url, and auth if any); returns those that did not come as locked."""
    pending = []
    for crate in crates:
        place = places[_file(crate)]
        pending.append((crate, rctx.download(
            place["url"],
            _file(crate),
            sha256 = crate["sha256"],
            allow_fail = True,
            auth = {place["url"]: place["auth"]} if "auth" in place else {},
            block = False,
        )))
    return [crate for crate, download in pending if not download.wait().success]
