"""The project's Debian library: mirrors, signed package indexes, dependency closure, .deb files; standard library only.

python3 fetch/debian/archive.py mirrors        # JSON: where Debian comes from on this machine (`urls`), and the user's
                                               # logins there (`auth`: mirror → as Bazel's download expects it)
python3 fetch/debian/archive.py sha256 URL SIZE
                                               # JSON: the sha256 of what is there, or that it has more bytes
"""

from __future__ import annotations

import argparse
import email.utils
import functools
import io
import json
import lzma
import math
import os
import re
import shutil
import subprocess
import sys
import tempfile
import time
import urllib.parse
from collections.abc import Collection, Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Callable, NamedTuple

# Repository rules run this file by path. The workspace root is last, so that no file there replaces one of the standard
# library.
sys.path.append(str(Path(__file__).resolve().parents[2]))

from fetch import archives, credentials, download, errors, folders

# The archives and the environment variables that name mirrors of them.
ARCHIVES = {"debian": "MLC_DEBIAN_MIRROR", "debian-security": "MLC_DEBIAN_SECURITY_MIRROR"}


class DebianError(errors.UserError):
    """Debian's archive or a package is not as expected; the message names it and the command that fixes it."""


class SignatureError(DebianError):
    """An index is not signed by a key of the machine's keyring, or is another one, so it must not be used."""


class OutdatedError(DebianError):
    """An index is signed, but too old."""


# Mirrors ---------------------------------------------------------------------------------------------------------


def mirrors() -> dict[str, list[str]]:
    """Base URLs of each archive, best first, without user, password and a trailing slash.

    From the environment (MLC_DEBIAN_MIRROR, MLC_DEBIAN_SECURITY_MIRROR: one or more URLs, space-separated), else from
    the machine's apt configuration. An archive that neither names has an empty list; `mirror_urls` makes that an error.
    """
    found: dict[str, list[str]] = {name: os.environ.get(variable, "").split() for name, variable in ARCHIVES.items()}
    if not all(found.values()):
        for name, url in _apt_mirrors():
            if not os.environ.get(ARCHIVES[name]):
                found[name].append(url)
    return {
        name: list(dict.fromkeys(credentials.learn(url).rstrip("/") for url in urls)) for name, urls in found.items()
    }


def mirror_urls(archive: str) -> list[str]:
    """The mirrors of one archive; raises an error that says what to set if there is none."""
    urls = mirrors()[archive]
    if not urls:
        raise DebianError(
            f"no mirror of the archive '{archive}' is known: apt on this machine names none. "
            f"Set {ARCHIVES[archive]} to the URL of one (the folder that has dists/ and pool/)."
        )
    return urls


# The suites of Debian, by name and by role, with what may follow.
_SUITE = re.compile(
    "(bullseye|bookworm|trixie|forky|duke|sid|oldoldstable|oldstable|stable|testing|unstable)"
    "(-updates|-proposed-updates|-backports|-security|/updates)?"
)


class _Source(NamedTuple):
    """An index that apt is set up to read, for each address of its repository."""

    url: str
    release: str
    component: str
    origin: str  # Whose it is, or "" before the first `apt-get update`.

    @property
    def archive(self) -> str:
        security = self.url.rstrip("/").endswith("security") or self.release.endswith(("-security", "/updates"))
        return "debian-security" if security else "debian"

    def ends_as_debians(self) -> bool:
        return self.archive == "debian-security" or self.url.rstrip("/").endswith("/debian")

    def has_debians_suite(self) -> bool:
        return self.component == "main" and bool(_SUITE.fullmatch(self.release))


@functools.cache
def _apt_mirrors() -> tuple[tuple[str, str], ...]:
    """The archives and their mirrors as apt is set up: pairs of name and URL, best first.

    After `apt-get update` apt knows whose an archive is. Before, one is Debian's if its address ends so, or, if none
    does, as behind Artifactory, if its suite is one of Debian's.
    """
    updated = _apt_sources()
    found = [(source.archive, source.url) for source in updated if source.origin == "Debian"]
    if {archive for archive, _ in found} >= ARCHIVES.keys():
        return tuple(found)
    others = {source.url for source in updated if source.origin != "Debian"}
    listed = [source for source in _apt_sources("--no-release-info") if source.url not in others]
    for is_debians in (_Source.ends_as_debians, _Source.has_debians_suite):
        missing = ARCHIVES.keys() - {archive for archive, _ in found}
        found += [(source.archive, source.url) for source in listed if source.archive in missing and is_debians(source)]
    return tuple(found)


def _apt_sources(*options: str) -> list[_Source]:
    apt = shutil.which("apt-get")
    if not apt:
        return []
    fields = "\t".join(f"$({name})" for name in ("IDENTIFIER", "REPO_URI", "RELEASE", "COMPONENT", "ORIGIN"))
    command = [apt, "indextargets", *options, "--format", fields]
    listing = subprocess.run(command, stdout=subprocess.PIPE, stderr=subprocess.DEVNULL, text=True).stdout
    lines = [line.split("\t") for line in listing.splitlines()]
    return [
        # What is not known stays as it was in the format.
        _Source(url, release, component, "" if origin.startswith("$(") else origin)
        for kind, address, release, component, origin in (line for line in lines if len(line) == 5)
        if kind == "Packages"
        for url in _addresses(address)
    ]


def _addresses(address: str) -> list[str]:
    """The address itself, or those in the list of mirrors that it names, best first (apt-transport-mirror(1))."""
    if not address.startswith("mirror+file:"):
        return [address]
    try:
        text = Path(urllib.parse.unquote(urllib.parse.urlsplit(address).path.rstrip("/"))).read_text(encoding="utf-8")
    except (OSError, UnicodeDecodeError):
        return []
    lines = [line.partition("#")[0].split() for line in text.splitlines()]

    def priority(words: list[str]) -> float:
        given = [word[9:] for word in words if word.startswith("priority:") and word[9:].isdigit()]
        return int(given[0]) if given else math.inf

    return [words[0] for words in sorted(filter(None, lines), key=priority)]


# Signed indexes --------------------------------------------------------------------------------------------------


def keyring() -> Path:
    """The machine's keyring of Debian's archive keys (environment MLC_DEBIAN_KEYRING names another)."""
    usual = [f"/usr/share/keyrings/debian-archive-keyring.{suffix}" for suffix in ("gpg", "pgp")]
    for candidate in [os.environ.get("MLC_DEBIAN_KEYRING"), *usual]:
        if candidate and os.path.isfile(candidate):
            return Path(candidate)
    raise DebianError(
        "no keyring to check Debian's signatures with: expected /usr/share/keyrings/debian-archive-keyring.gpg. "
        "Install the package debian-archive-keyring, or set MLC_DEBIAN_KEYRING to its file."
    )


def verified_text(signed: bytes, what: str) -> str:
    """The text of an inline-signed file. The verifier itself writes it, so that nothing unsigned is read.

    Args:
      signed: an InRelease file (OpenPGP cleartext signature).
      what: its address, for messages.
    """
    ring = keyring()
    verifier = shutil.which("gpgv") or shutil.which("sqv")
    if not verifier:
        raise DebianError(
            f"{what}: neither gpgv nor sqv is there to check its signature with. Install the package gpgv."
        )
    with tempfile.TemporaryDirectory() as folder:
        source, text = Path(folder, "InRelease"), Path(folder, "Release")
        source.write_bytes(signed)
        if Path(verifier).name == "gpgv":
            command = [
                verifier,
                "--homedir",
                folder,
                "--status-fd",
                "1",
                "--keyring",
                str(ring),
                "--output",
                str(text),
                str(source),
            ]
        else:
            command = [verifier, "--keyring", str(ring), "--cleartext", "--output", str(text), str(source)]
        done = subprocess.run(command, capture_output=True, text=True, errors="replace")
        if Path(verifier).name == "gpgv":
            # Several keys sign a release, and an old machine may lack the newest: one good signature is enough. gpgv
            # calls one VALIDSIG too whose time or key has expired (EXPSIG, EXPKEYSIG), but not GOODSIG.
            status = {line.split()[1] for line in done.stdout.splitlines() if line.startswith("[GNUPG:] ")}
            good = {"GOODSIG", "VALIDSIG"} <= status and not status & {"BADSIG", "REVKEYSIG"}
        else:
            good = done.returncode == 0
        if not good or not text.exists():
            # Indented, so that no line of it looks like ours.
            said = "\n  ".join(done.stderr.strip().splitlines())
            raise SignatureError(
                f"{what}: bad signature. Expected one by a key in {ring}; {Path(verifier).name}"
                f" says:\n  {said}\nThe mirror is broken or not to be trusted: set MLC_DEBIAN_MIRROR to"
                " another one."
            )
        return text.read_text(encoding="utf-8")


@dataclass(frozen=True)
class Package:
    """One binary package of an index."""

    name: str
    version: str
    architecture: str
    sha256: str
    size: int
    path: str  # below the archive's root: pool/…
    suite: str
    archive: str
    fields: Mapping[str, str] = field(repr=False, compare=False)

    @property
    def source(self) -> tuple[str, str]:
        """Name and version of the source package."""
        match = re.fullmatch(r"(\S+)(?: \((.+)\))?", self.fields.get("Source", self.name))
        if not match:
            found = self.fields.get("Source", self.name)
            raise DebianError(f"{self.name}: expected a source package, found {found!r:.100}")
        return match.group(1), match.group(2) or self.version

    def urls(self) -> list[str]:
        """Where the .deb is, on each mirror."""
        return [f"{mirror}/{self.path}" for mirror in mirror_urls(self.archive)]


def parse_stanza(text: str) -> dict[str, str]:
    """Fields of one control stanza (deb822), with newlines between continuation lines; for the bootstrap only, other
    programs use python-debian.

    Raises:
      DebianError: a field is there twice, or a continuation line has no field.
    """
    fields: dict[str, str] = {}
    name = ""
    for line in text.split("\n"):
        if line.startswith((" ", "\t")):
            if not name:
                raise DebianError(f"expected a field before the line {line!r:.100}")
            fields[name] += "\n" + line[1:]
        elif ":" in line:
            name, _, value = line.partition(":")
            if name in fields:
                raise DebianError(f"expected the field {name!r:.100} once, found it twice")
            fields[name] = value.strip()
    return fields


# What may be in an address and, at its end, in a file name; ".." leads nowhere that a mirror has.
_PATH = re.compile(r"(?!.*(^|/)\.\.?(/|$))[A-Za-z0-9._+~%=-]+(/[A-Za-z0-9._+~%=:-]+)*")


def _package(name: str, stanza: str, suite: str, archive: str) -> Package:
    """One package of an index."""
    try:
        fields = parse_stanza(stanza)
        package = Package(
            name=name,
            version=fields["Version"],
            architecture=fields["Architecture"],
            sha256=fields["SHA256"],
            size=int(fields["Size"]),
            path=fields["Filename"],
            suite=suite,
            archive=archive,
            fields=fields,
        )
        version_key(package.version)
        if not re.fullmatch(r"[a-z0-9][a-z0-9+.-]*", name) or fields["Package"] != name:
            raise ValueError(f"the name {fields['Package']!r}")
        if not re.fullmatch(r"[0-9a-f]{64}", package.sha256) or not _PATH.fullmatch(package.path) or package.size < 0:
            raise ValueError(f"sha256 {package.sha256!r}, path {package.path!r}, size {package.size}")
    except (DebianError, KeyError, ValueError) as error:
        raise DebianError(
            f"{name!r:.100}: expected a package with version, hash, size and path in the index of {suite}, found"
            f" {type(error).__name__}: {error!s:.200}. Set {ARCHIVES[archive]} to another mirror."
        ) from error
    return package


class Index:
    """The packages of one or more suites by name, in the newest version."""

    def __init__(self, text: str = "", suite: str = "", archive: str = "debian") -> None:
        self._stanzas: dict[str, list[tuple[str, str, str]]] = {}
        self._parsed: dict[str, Package] = {}
        for stanza in text.split("\n\n"):
            if stanza.startswith("Package: "):
                self._stanzas.setdefault(stanza[9:].partition("\n")[0].strip(), []).append((stanza, suite, archive))

    def merge(self, other: Index) -> Index:
        """Both indexes in one, with the newer version of a package that both have."""
        merged = Index()
        for index in (self, other):
            for name, stanzas in index._stanzas.items():
                merged._stanzas.setdefault(name, []).extend(stanzas)
        return merged

    def __contains__(self, name: str) -> bool:
        return name in self._stanzas

    def __iter__(self) -> Iterator[str]:
        return iter(self._stanzas)

    def __getitem__(self, name: str) -> Package:
        if name not in self._parsed:
            if name not in self._stanzas:
                suites = sorted({suite for stanzas in self._stanzas.values() for _, suite, _ in stanzas})
                raise DebianError(f"no package '{name}' in {', '.join(suites) or 'an empty index'}")
            candidates = []
            for stanza, suite, archive in self._stanzas[name]:
                candidates.append(_package(name, stanza, suite, archive))
            self._parsed[name] = max(candidates, key=lambda package: version_key(package.version))
        return self._parsed[name]

    @functools.cached_property
    def providers(self) -> dict[str, list[str]]:
        """Virtual package → the real ones that provide it, sorted."""
        found: dict[str, list[str]] = {}
        for name, stanzas in self._stanzas.items():
            for stanza, _, _ in stanzas:
                match = re.search(r"^Provides: (.*)$", stanza, re.MULTILINE)
                for virtual in filter(str.strip, match.group(1).split(",") if match else ()):
                    found.setdefault(virtual.split()[0].split(":")[0], []).append(name)
        return {virtual: sorted(set(names)) for virtual, names in found.items()}


def fetch_index(
    suite: str,
    archive: str = "debian",
    component: str = "main",
    architecture: str = "amd64",
    progress: Callable[[int], None] = lambda received: None,
    warn: Callable[[str], None] = lambda line: print(line, file=sys.stderr),
) -> Index:
    """The package index of a suite, checked by the signature of the suite's release and the hash in it.

    The release must be of this suite, valid, and not older than the newest that was seen (a record in the launcher's
    cache folder): else a mirror, or anyone on the way to it, could serve an old one, which is signed too.

    Args:
      suite: for example "bookworm", "forky", "bookworm-security".
      archive: "debian" or "debian-security".
      warn: prints a line about an index that is used although it is late.

    Raises:
      DebianError: no mirror has the suite, or its signature, suite, age or hash is wrong.
    """
    failures = []
    for mirror in mirror_urls(archive):
        base = f"{mirror}/dists/{suite}"
        try:
            signed = download.read(f"{base}/InRelease", limit=_RELEASE_BYTES)
            release = parse_stanza(verified_text(signed, f"{base}/InRelease"))
            _check_release(release, f"{base}/InRelease", suite, component, architecture)
            date = _check_age(release, f"{base}/InRelease", suite, archive, warn)
            name = f"{component}/binary-{architecture}/Packages"
            packed = _read_index(base, name + ".xz", *_listed(release, name + ".xz", base), progress)
            text = _unpack_index(packed, _listed(release, name, base)[1], base)
        except (download.DownloadError, OutdatedError) as error:
            failures.append(str(error))
            continue
        _record_date(archive, suite, date)
        return Index(text, suite, archive)
    raise DebianError(
        f"no mirror has the suite '{suite}' of the archive '{archive}':\n  "
        + "\n  ".join(failures)
        + f"\nCheck the network (tools/bazel doctor), or set {ARCHIVES[archive]} to a mirror that answers."
    )


# Debian's releases have a fifth of a megabyte, its largest index 60 unpacked.
_RELEASE_BYTES = 4 << 20
_INDEX_BYTES = 1 << 30

# Suites that are used after their Valid-Until, with a warning: mirrors of them lag by weeks, and only they have Bazel.
_MAY_BE_LATE = ("testing", "unstable")


def _check_release(release: Mapping[str, str], what: str, suite: str, component: str, architecture: str) -> None:
    """Checks that a signed release is the one that was asked for.

    Raises:
      SignatureError: it is not.
    """
    found = {
        "suite": [release.get("Suite", ""), release.get("Codename", "")],
        # The security archive's are "updates/main" and so on.
        "component": [name.rpartition("/")[2] for name in release.get("Components", "").split()],
        "architecture": release.get("Architectures", "").split(),
    }
    for kind, wanted in (("suite", suite), ("component", component), ("architecture", architecture)):
        if wanted not in found[kind]:
            raise SignatureError(
                f"{what}: expected the {kind} '{wanted}', found {', '.join(filter(None, found[kind])) or 'none'}. It is"
                " signed, but the mirror serves it in the wrong place: set MLC_DEBIAN_MIRROR to another one."
            )


def _check_age(
    release: Mapping[str, str], what: str, suite: str, archive: str, warn: Callable[[str], None]
) -> tuple[float, str]:
    """Checks that a signed release is not too old. Returns its date, in seconds and as it says it.

    Raises:
      OutdatedError: it is.
    """
    date, until = release.get("Date", ""), release.get("Valid-Until", "")
    made = _seconds(date)
    if made is None:
        raise OutdatedError(f"{what}: expected a date in the field Date, found '{date}'")
    newest = _recorded_dates().get(f"{archive} {suite}", "")
    if made < (_seconds(newest) or 0):
        raise OutdatedError(
            f"{what}: expected the release of {newest}, which this machine has seen, or a newer one, found the one of"
            f" {date}. The mirror lags or serves an old one: wait, or set {ARCHIVES[archive]} to another one. If you"
            f" know that it is right, delete {_dates_file()}."
        )
    expires = _seconds(until)
    if until and (expires is None or expires < time.time()):
        # With its updates and security fixes: "testing-security".
        if release.get("Suite", "").partition("-")[0] not in _MAY_BE_LATE:
            raise OutdatedError(
                f"{what}: expected a release that is valid now, found one of {date} that was valid until {until}. The"
                f" mirror lags or serves an old one, or this machine's clock is wrong: wait, or set"
                f" {ARCHIVES[archive]} to another one."
            )
        warn(f"{what}: the mirror is late: its release is of {date} and was valid until {until}")
    return made, date


def _seconds(date: str) -> float | None:
    """Seconds since 1970 of a date in a release, or None if it is none."""
    parts = email.utils.parsedate_tz(date)
    try:
        return email.utils.mktime_tz(parts) if parts else None
    except (ValueError, OverflowError):
        return None


def _dates_file() -> Path:
    return Path(folders.cache(), "debian-dates.json")


def _recorded_dates() -> dict[str, str]:
    """Archive and suite → date of the newest release that was seen; empty without a cache or a record."""
    try:
        known = json.loads(_dates_file().read_text(encoding="utf-8"))
        return {key: date for key, date in known.items() if isinstance(date, str)}
    except (OSError, ValueError, AttributeError, RecursionError, folders.NoCacheError):
        return {}


def _record_date(archive: str, suite: str, date: tuple[float, str]) -> None:
    known = _recorded_dates()
    if date[0] <= (_seconds(known.get(f"{archive} {suite}", "")) or 0):
        return
    try:
        file = _dates_file()
        file.parent.mkdir(parents=True, exist_ok=True)
        temporary = file.with_name(f"{file.name}.{os.getpid()}")
        temporary.write_text(json.dumps({**known, f"{archive} {suite}": date[1]}, indent=2) + "\n", encoding="utf-8")
        os.replace(temporary, file)
    except (OSError, folders.NoCacheError):  # Without a cache there is no record.
        pass


def _listed(release: Mapping[str, str], name: str, base: str) -> tuple[str, int]:
    """The sha256 and the size of a file that a release lists."""
    for line in release.get("SHA256", "").splitlines():
        match = re.fullmatch(r"([0-9a-f]{64})\s+(\d{1,12})\s+(\S+)", line.strip())
        if match and match[3] == name:
            return match[1], int(match[2])
    raise DebianError(f"{base}/InRelease names no {name}: the suite does not have this architecture or component")


def _read_index(base: str, name: str, sha256: str, size: int, progress: Callable[[int], None]) -> bytes:
    folder = name.rsplit("/", 1)[0]
    if size > _INDEX_BYTES:
        raise DebianError(f"{base}/{name}: expected at most {_INDEX_BYTES} bytes, found {size}")
    # By hash first: during a mirror's update the plain name may belong to another Release.
    with tempfile.TemporaryDirectory() as scratch:
        urls = [f"{base}/{folder}/by-hash/SHA256/{sha256}", f"{base}/{name}"]
        return download.fetch(urls, Path(scratch, "Packages.xz"), sha256, size, progress).read_bytes()


def _unpack_index(packed: bytes, size: int, base: str) -> str:
    unpacker = lzma.LZMADecompressor()
    try:
        text = unpacker.decompress(packed, max_length=min(size, _INDEX_BYTES) + 1)
    except lzma.LZMAError as error:
        raise DebianError(f"{base}: a damaged index: {error}") from error
    if len(text) != size:
        raise DebianError(f"{base}: expected an index of {size} bytes, found another size")
    return text.decode("utf-8")


# Versions and dependencies ---------------------------------------------------------------------------------------


@functools.total_ordering
class version_key:
    """Orders versions (Debian policy 5.6.12); for the bootstrap only, other programs use python-debian."""

    def __init__(self, version: str) -> None:
        epoch, colon, rest = version.partition(":")
        # The length keeps int() from refusing long numbers.
        if len(version) > 500 or not re.fullmatch(r"[!-~]*", version) or colon and not epoch.isdigit():
            raise DebianError(f"expected a version (Debian policy 5.6.12), found {version!r:.100}")
        self._epoch, rest = (int(epoch), rest) if colon else (0, version)
        upstream, dash, revision = rest.rpartition("-")
        self._parts = (upstream, revision) if dash else (rest, "0")

    @staticmethod
    def _weights(text: str) -> list[tuple]:
        # Non-digits and digits alternate; '~' sorts before the end of the part, letters before other characters.
        pieces: list[tuple] = []
        for letters, digits in re.findall(r"(\D*)(\d*)", text):
            weights = [-1 if c == "~" else ord(c) if c.isalpha() else ord(c) + 256 for c in letters]
            pieces.append((tuple(weights) + (0,), int(digits or 0)))
        return pieces

    def _key(self) -> tuple:
        return (self._epoch, *(self._weights(part) for part in self._parts))

    def __eq__(self, other: object) -> bool:
        return isinstance(other, version_key) and self._key() == other._key()

    def __lt__(self, other: version_key) -> bool:
        return self._key() < other._key()


_RELATION = re.compile(r"^(?P<name>[a-z0-9][a-z0-9.+-]*)(?::\w+)?(?: *\((?P<op><<|<=|=|>=|>>) *(?P<version>[^)]+)\))?")


def _satisfies(version: str, op: str | None, wanted: str | None) -> bool:
    if not op or not wanted:
        return True
    have, want = version_key(version), version_key(wanted.strip())
    return {"<<": have < want, "<=": have <= want, "=": have == want, ">=": have >= want, ">>": have > want}[op]


def resolve(packages: Index, roots: Iterable[str], exclude: Collection[str] = ()) -> list[Package]:
    """The roots and everything they (pre-)depend on, sorted by name.

    Of alternatives (`a | b`) it takes the first that is already chosen, else the first that the index has. A provider
    that is already chosen satisfies a virtual package, else the first one by name.

    Args:
      packages: the index (or several, merged).
      roots: package names.
      exclude: names that are neither chosen nor followed, and count as satisfied.

    Raises:
      DebianError: the index cannot satisfy a root or a dependency.
    """
    chosen: dict[str, Package] = {}
    queue = list(roots)
    while queue:
        name = queue.pop(0)
        if name in chosen or name in exclude:
            continue
        package = chosen[name] = packages[name]
        for key in ("Pre-Depends", "Depends"):
            for clause in filter(None, (part.strip() for part in package.fields.get(key, "").split(","))):
                queue.append(_choose(packages, clause, chosen, queue, exclude, package))
    return [chosen[name] for name in sorted(chosen)]


def _choose(
    packages: Index,
    clause: str,
    chosen: Collection[str],
    queued: Collection[str],
    exclude: Collection[str],
    of: Package,
) -> str:
    candidates: list[str] = []
    for alternative in clause.split("|"):
        match = _RELATION.match(alternative.strip())
        if not match:
            raise DebianError(f"{of.name} {of.version}: cannot read the dependency '{clause}'")
        name = match["name"]
        if name in exclude:
            return name
        if name in packages and _satisfies(packages[name].version, match["op"], match["version"]):
            candidates.append(name)
        candidates.extend(packages.providers.get(name, ()))
    for name in candidates:
        if name in exclude:
            return name
    for have in (chosen, queued):
        for name in candidates:
            if name in have:
                return name
    if not candidates:
        raise DebianError(f"{of.name} {of.version} depends on '{clause}', which the index of {of.suite} does not have")
    return candidates[0]


# .deb files ------------------------------------------------------------------------------------------------------


class Deb:
    """A .deb file (deb(5): an ar archive of debian-binary, control.tar.*, data.tar.*).

    Raises:
      DebianError: it is none, or a part of it is damaged.
      archives.ArchiveError: one of its tar archives is damaged.
    """

    def __init__(self, path: os.PathLike) -> None:
        self.path = Path(path)
        self._members: dict[str, tuple[int, int]] = {}
        with open(self.path, "rb") as file:
            if file.read(8) != b"!<arch>\n":
                raise DebianError(f"{self.path}: not a Debian package (no ar archive)")
            length = os.fstat(file.fileno()).st_size
            while header := file.read(60):
                begin = file.tell()
                name = re.fullmatch(rb"([!-.0-~]+)/? *", header[:16])
                # int() would also take signs and underscores.
                number = re.fullmatch(rb"([0-9]+) *", header[48:58])
                size = int(number[1]) if number else 0
                if not (name and number and header[58:] == b"`\n" and begin + size <= length):
                    raise DebianError(f"{self.path}: damaged Debian package (ar header at byte {begin - len(header)})")
                if (decoded := name[1].decode("ascii")) in self._members:
                    raise DebianError(f"{self.path}: damaged Debian package ({decoded} twice)")
                self._members[decoded] = (begin, size)
                file.seek(size + size % 2, os.SEEK_CUR)

    def _tar(self, stem: str) -> archives.Tar:
        for name, (offset, size) in self._members.items():
            if name.startswith(stem + ".tar"):
                if not name.endswith((".xz", ".gz", ".tar")):
                    raise DebianError(
                        f"{self.path}: {name} is compressed in a way that Python's standard library cannot read"
                        " (expected xz or gz)"
                    )
                with open(self.path, "rb") as file:
                    file.seek(offset)
                    return archives.open_tar(io.BytesIO(file.read(size)), self.path.name)
        raise DebianError(f"{self.path}: damaged Debian package (no {stem}.tar.*)")

    @functools.cached_property
    def control(self) -> dict[str, str]:
        """The control file's fields."""
        with self._tar("control") as tar:
            for member in tar:
                if member.name in ("control", "./control") and member.isreg():
                    with archives.reading(f"{self.path}: control"):
                        text = archives.content(tar, member).read().decode("utf-8")
                    return parse_stanza(text)
        raise DebianError(f"{self.path}: damaged Debian package (no control file)")

    def data(self) -> archives.Tar:
        """The package's files; the caller closes it."""
        return self._tar("data")


def main(arguments: Sequence[str] | None = None) -> int:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    commands = parser.add_subparsers(dest="command", required=True)
    commands.add_parser("mirrors", help="base URLs of each archive, best first")
    of_url = commands.add_parser("sha256", help="the sha256 of a URL's content")
    of_url.add_argument("url")
    of_url.add_argument("size", type=int, help="the bytes that it should have; no more are hashed")
    options = parser.parse_args(arguments)
    try:
        answer: object
        urls = mirrors()
        if options.command == "mirrors":
            logins = {url: credentials.find(url + "/") for each in urls.values() for url in each}
            answer = {"urls": urls, "auth": {url: login.for_bazel() for url, login in logins.items() if login}}
        else:
            try:
                answer = download.remote_sha256(options.url, limit=options.size)
            except download.TooLargeError:
                answer = f"a file of more than {options.size} bytes"
    except errors.UserError as error:
        print(error, file=sys.stderr)
        return 1
    json.dump(answer, sys.stdout, indent=2)
    print()
    return 0


if __name__ == "__main__":
    sys.exit(main())
