"""Downloads locked Debian packages through Bazel's downloader, so that repository cache and --distdir work."""

_DEBIAN = Label("//fetch/debian:archive.py")

def debian_mirrors(rctx):
    """Where this machine gets Debian packages from.

    Returns:
      A struct: `urls`, archive name → list of base URLs; `auth`, base URL → login as rctx.download expects it; `problem`, why there
      are none ("" if there are).
    """
    no_network = rctx.os.environ.get("MLC_NO_NETWORK")
    if no_network:
        return struct(urls = {}, auth = {}, problem = no_network)
    python = rctx.which("python3")
    if not python:
        return struct(urls = {}, auth = {}, problem = "python3, which asks apt for the machine's mirrors, is not on PATH")
    asked = rctx.execute([python, "-IB", rctx.path(_DEBIAN), "mirrors"])
    if asked.return_code:
        return struct(urls = {}, auth = {}, problem = asked.stderr.strip())
    answer = json.decode(asked.stdout)
    return struct(urls = answer["urls"], auth = answer["auth"], problem = "")

def download_packages(rctx, packages, mirrors):
    """Downloads packages into the repository's folder, all at once.

    Args:
      rctx: the repository context.
      packages: part of the lock: key → struct of version, sha256, size, path, archive.
      mirrors: what `debian_mirrors` returned.

    Returns:
      A struct: `files`, the files' names in the order of `packages`; `error`, what went wrong with the first that failed, or None.
    """
    pending = {}
    for key, package in packages.items():
        # Without a mirror there is still the repository cache or --distdir, which look at the hash and the last part of the URL only.
        bases = mirrors.urls.get(package["archive"]) or ["file:///no-mirror"]
        urls = ["{}/{}".format(base, package["path"]) for base in bases]
        name = package["path"].rpartition("/")[2]
        pending[key] = struct(
            name = name,
            urls = urls,
            download = rctx.download(
                urls,
                name,
                sha256 = package["sha256"],
                allow_fail = True,
                auth = {url: mirrors.auth[base] for base, url in zip(bases, urls) if base in mirrors.auth},
                block = False,
            ),
        )
    failed = [key for key, one in pending.items() if not one.download.wait().success]
    return struct(
        files = [one.name for one in pending.values()],
        error = _explain(rctx, failed[0], packages[failed[0]], pending[failed[0]], mirrors) if failed else None,
    )

def _explain(rctx, key, package, failed, mirrors):
    what = "Debian package {} {}".format(key, package["version"])
    if rctx.os.environ.get("MLC_NO_NETWORK"):
        return "{} (sha256 {}): {}".format(what, package["sha256"], mirrors.problem)
    if not mirrors.urls.get(package["archive"]):
        return "{}: no mirror of the archive '{}' is known{}. Set {} to the URL of one (the folder that has dists/ and pool/).".format(
            what,
            package["archive"],
            " (" + mirrors.problem + ")" if mirrors.problem else ": apt on this machine names none",
            "MLC_DEBIAN_SECURITY_MIRROR" if package["archive"] == "debian-security" else "MLC_DEBIAN_MIRROR",
        )

    # Once more, to tell a wrong file from a missing one. Not by Bazel, which takes nothing over plain http without a hash.
    for url in failed.urls:
        found = rctx.execute([rctx.which("python3"), "-IB", rctx.path(_DEBIAN), "sha256", url, str(package["size"])])
        if not found.return_code:
            return ("{}: the mirror has another file than locks/debian.lock.json: expected sha256 {}, found {} ({}). " +
                    "If the lock is meant to change: tools/bazel run //locks:update_debian").format(what, package["sha256"], json.decode(found.stdout), url)
    return ("{}: no mirror has it; tried {}. Debian removes a version some time after it is replaced; " +
            "to lock the present ones: tools/bazel run //locks:update_debian").format(what, ", ".join(failed.urls))
