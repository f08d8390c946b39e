"""Every parser of what comes from outside takes damaged input or raises its documented error, whatever the damage.

A fuzzing target per parser. The tests run a fixed seed for seconds; CI runs another one for longer every week. To run
one longer, or again with the seed and the number of rounds that a failure names:

    tools/bazel test //tests/hostile:parsers --test_env=FUZZ_ROUNDS=100000 --test_env=FUZZ_SEED=1 --test_filter=deb822
"""

from __future__ import annotations

import dataclasses
import gzip
import hashlib
import json
import os
import re
import shutil
import signal
import tarfile
import types
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

import pytest

from fetch import archives, download, errors, locks
from fetch.debian import archive as debian
from fetch.debian import unpack
from fetch.pypi import extract
from fetch.pypi import index as pypi
from oci import layout, reference
from tests.hostile import archives as corpus
from tests.private.deb import deb
from tests.private.mutations import Mutator
from tests.private.starlark import evaluate
from tools.launcher import pack_format
from wheels import finished

ROUNDS = int(os.environ.get("FUZZ_ROUNDS", "400"))
SEED = os.environ.get("FUZZ_SEED", "1")
# No input takes a tenth of a second; one that takes this long does not end.
_MOST_SECONDS = 60

LOCK = {name: Path(path).read_text() for path in os.environ["LOCKS"].split() for name in [Path(path).name]}
READER = evaluate(Path(os.environ["LOCK_BZL"]))


def bazels_decode(text: str, default: Any) -> Any:
    """Bazel 7.7.1: the last of two entries wins, as in Python."""
    try:
        return json.loads(text)
    except (ValueError, RecursionError):
        return default


def bazels_encode(content: Any) -> str:
    return json.dumps(content, separators=(",", ":"), sort_keys=True)


JSON_READER = evaluate(
    Path(os.environ["JSON_LOCK_BZL"]), json=types.SimpleNamespace(decode=bazels_decode, encode=bazels_encode)
)


@dataclasses.dataclass(frozen=True)
class Target:
    """One parser.

    Args:
        samples: intact inputs, which it takes.
        damage: damages one of them.
        read: reads an input as the build does, in an empty folder, and checks what it got.
        refusals: what the parser raises on damaged input.
        tokens: pieces of the format that damage may put anywhere.
        least: the part of damaged inputs that it must refuse; damage that nothing notices tests nothing.
    """

    samples: Sequence[Any]
    damage: Callable[[Mutator, Any], Any]
    read: Callable[[Any, Path], None]
    refusals: tuple[type[Exception], ...]
    tokens: Sequence[str] = ()
    least: float = 0.05


def any_bytes(mutator: Mutator, sample: bytes) -> bytes:
    return mutator.data(sample)


def any_text(mutator: Mutator, sample: str) -> str:
    return mutator.text(sample)


def any_json(mutator: Mutator, sample: str) -> str:
    return mutator.json(sample)


# Debian ----------------------------------------------------------------------------------------------------------

STANZA = f"""\
Package: hello
Source: hello-source (1.0)
Version: 1:2.0~rc1-1+b1
Architecture: amd64
Depends: libc6 (>= 2.36), a | b (<< 3:1-1), virtual
Pre-Depends: dpkg (>> 1.0)
Provides: virtual, other (= 2)
Filename: pool/main/h/hello/hello_2.0_amd64.deb
Size: 100
SHA256: {"0" * 64}
Description: one
 two
"""
OTHERS = "\n".join(
    f"Package: {name}\nVersion: 3\nArchitecture: all\nFilename: pool/{name}.deb\nSize: 1\nSHA256: {'1' * 64}\n"
    for name in ("libc6", "a", "dpkg")
)


def read_index(text: str, folder: Path) -> None:
    debian.parse_stanza(text)
    index = debian.Index(text + "\n" + OTHERS, "forky")
    for name in index:
        package = index[name]
        assert package.source
        assert re.fullmatch("[0-9a-f]{64}", package.sha256)
        assert ".." not in package.path.split("/") and not package.path.startswith("/")
    debian.resolve(index, ["hello"])


def read_ar(data: bytes, folder: Path) -> None:
    (folder / "x.deb").write_bytes(data)
    package = debian.Deb(folder / "x.deb")
    assert package.control is not None
    with package.data() as tar:
        for member in tar:
            if member.isreg():
                archives.content(tar, member).read()


# Archives --------------------------------------------------------------------------------------------------------

# Only what is intact: damage adds the rest. With GNU's and with POSIX's headers.
TARS = [data for data, _ in corpus.HARMLESS.values()] + [
    corpus.tar(
        corpus.member("d", corpus.FOLDER),
        corpus.member("d/" + "n" * 150, data=b"x" * 600),
        corpus.member("l", corpus.LINK, "d/" + "m" * 150),
        form=form,
    )
    for form in (tarfile.GNU_FORMAT, tarfile.PAX_FORMAT, tarfile.USTAR_FORMAT)
    if form != tarfile.USTAR_FORMAT
]
HOSTILE_TARS = [data for data in corpus.TARS.values() if 0 < len(data) < 1 << 16]


def damage_tar(mutator: Mutator, sample: bytes) -> bytes:
    """Damage in headers, with checksums that are right again: else tarfile looks no further."""
    data = bytearray(mutator.data(sample, HOSTILE_TARS))
    if mutator.random.random() < 0.8:
        for begin in range(0, len(data) - 511, 512):
            head = data[begin : begin + 512]
            if head[257:262] == b"ustar":
                data[begin : begin + 512] = corpus.with_checksums(bytes(head))
    return bytes(data)


def read_tar(data: bytes, folder: Path) -> None:
    (folder / "root").mkdir()
    (folder / "x.deb").write_bytes(deb({"data.tar": data}))
    try:
        unpack.unpack(folder / "x.deb", folder / "root")
    finally:
        assert sorted(path.name for path in folder.iterdir()) == ["root", "x.deb"]
        for path in (folder / "root").rglob("*"):
            assert path.is_symlink() or path.is_file() or path.is_dir()
            assert folder / "root" in (target := (folder / "root" / os.path.realpath(path)), *target.parents)


def read_sdist(data: bytes, folder: Path) -> None:
    (folder / "x-1.tar.gz").write_bytes(data)
    extract.extract(folder / "x-1.tar.gz", folder / "root", "", [])
    assert {path.name for path in folder.iterdir()} <= {"root", "x-1.tar.gz"}


METADATA = b"Metadata-Version: 2.1\nName: x\nVersion: 1\nRequires-Dist: y\n\nText\n"
RECORD = "\n".join(
    f"{name},{finished._digest(data)},{len(data)}"
    for name, data in (("x.py", b"1"), ("x-1.dist-info/METADATA", METADATA))
)
WHEEL = corpus.zipped(
    ("x.py", b"1"),
    ("x-1.dist-info/METADATA", METADATA),
    ("x-1.dist-info/RECORD", f"{RECORD}\nx-1.dist-info/RECORD,,\n".encode()),
)


def read_wheel(data: bytes, folder: Path) -> None:
    path = folder / "x-1-py3-none-any.whl"
    path.write_bytes(data)
    try:
        extract.extract(path, folder / "root", "", [])
    finally:
        assert {each.name for each in folder.iterdir()} <= {"root", path.name}


def read_finished_wheel(data: bytes, folder: Path) -> None:
    path = folder / "x-1-py3-none-any.whl"
    path.write_bytes(data)
    (folder / "finished").mkdir()
    finished.FinishedWheel(path, finished.identify(path, [])).write_to(folder / "finished")


# Package index ---------------------------------------------------------------------------------------------------

PAGE = "https://index.example.org/simple/x/"
FILES = [("x-1.tar.gz", "0" * 64), ("x-1-py3-none-any.whl", "1" * 64)]
HTML = "<!DOCTYPE html><html><body>\n" + "\n".join(
    f'<a href="../../files/{name}#sha256={sha256}" data-requires-python="&gt;=3.9">{name}</a><br>'
    for name, sha256 in FILES
)
JSON = json.dumps(
    {
        "meta": {"api-version": "1.0"},
        "name": "x",
        "files": [
            {"filename": name, "url": f"../../files/{name}", "hashes": {"sha256": sha256}, "yanked": False}
            for name, sha256 in FILES
        ],
    }
)


def read_page(text: str, folder: Path) -> None:
    for file in pypi.parse_page(PAGE, text.encode(errors="surrogatepass")):
        assert re.fullmatch(r"[\w.+~!%@=,:-]+", file["filename"], re.ASCII) and file["filename"] not in (".", "..")
        assert file["url"].startswith(("https://", "http://")) and "@" not in file["url"]
        assert all(isinstance(value, str) for value in file["hashes"].values())


# OCI -------------------------------------------------------------------------------------------------------------

Documents = dict[str, Any]


def documents() -> Documents:
    """An image: index, manifest and configuration as text, and a layer."""
    layer = gzip.compress(corpus.tar(corpus.member("a", data=b"1"), corpus.member("b", corpus.LINK, "a")), mtime=0)
    return {
        "index": json.dumps(
            {"schemaVersion": 2, "manifests": [{"mediaType": layout.MANIFEST, "digest": "manifest", "size": 1}]}
        ),
        "manifest": json.dumps(
            {
                "schemaVersion": 2,
                "mediaType": layout.MANIFEST,
                "config": {"mediaType": "application/vnd.oci.image.config.v1+json", "digest": "config", "size": 1},
                "layers": [{"mediaType": "application/vnd.oci.image.layer.v1.tar+gzip", "digest": "layer", "size": 1}],
            }
        ),
        "config": json.dumps({"os": "linux", "architecture": "amd64", "config": {"Labels": {"a": "b"}}}),
        "layer": layer,
    }


def damage_documents(mutator: Mutator, sample: Documents) -> Documents:
    """Damage in one document; the others name it by its new digest."""
    name = mutator.random.choice(sorted(sample))
    damaged = mutator.data(sample[name]) if name == "layer" else mutator.json(sample[name])
    return {**sample, name: damaged}


def write_documents(content: Documents, folder: Path) -> None:
    (folder / "blobs/sha256").mkdir(parents=True)
    (folder / "oci-layout").write_text('{"imageLayoutVersion": "1.0.0"}')
    digests: dict[str, str] = {}
    for name in ("layer", "config", "manifest", "index"):
        data = content[name] if isinstance(content[name], bytes) else content[name].encode(errors="surrogatepass")
        for each, digest in digests.items():
            data = data.replace(f'"digest": "{each}"'.encode(), f'"digest": "{digest}"'.encode())
        digests[name] = f"sha256:{hashlib.sha256(data).hexdigest()}"
        (folder / "index.json" if name == "index" else layout.blob(folder, digests[name])).write_bytes(data)


def read_layout(content: Documents, folder: Path) -> None:
    write_documents(content, folder / "image")
    image = layout.Image(folder / "image")
    assert isinstance(image.config, dict)
    assert image.layers is not None
    assert re.fullmatch(reference.DIGEST, layout.verified_digest(folder / "image"))
    assert {path.name for path in folder.iterdir()} == {"image"}


def read_reference(name: str, folder: Path) -> None:
    parsed = reference.parse(name)
    assert re.fullmatch(r"[\[\]A-Za-z0-9.:-]+", parsed.host) and re.fullmatch("[a-z0-9._/-]+", parsed.name)
    assert bool(parsed.tag) != bool(parsed.digest)
    assert str(parsed) == name
    assert isinstance(reference.on_this_machine(parsed.host), bool)


# Packs -----------------------------------------------------------------------------------------------------------


def pack(content: Documents) -> bytes:
    """A pack (tools/launcher/pack_format.py) of these documents: index, manifest, config and one blob."""
    digests: dict[str, str] = {}
    members = [corpus.member("oci-layout", data=pack_format.LAYOUT)]
    files: dict[str, bytes] = {}
    for name in ("blob", "config", "manifest", "index"):
        data = content[name] if isinstance(content[name], bytes) else content[name].encode(errors="surrogatepass")
        for each, digest in digests.items():
            data = data.replace(f'"digest": "{each}"'.encode(), f'"digest": "sha256:{digest}"'.encode())
        digests[name] = hashlib.sha256(data).hexdigest()
        files[name] = data
    members.append(corpus.member("index.json", data=files["index"]))
    members += [
        corpus.member(pack_format.BLOBS + digests[name], data=files[name]) for name in ("manifest", "config", "blob")
    ]
    return corpus.tar(*members)


PACK: Documents = {
    "index": json.dumps(
        {"schemaVersion": 2, "manifests": [{"artifactType": pack_format.TYPE, "digest": "manifest", "size": 1}]}
    ),
    "manifest": json.dumps(
        {
            "schemaVersion": 2,
            "mediaType": pack_format.MANIFEST_TYPE,
            "artifactType": pack_format.TYPE,
            "config": {"mediaType": pack_format.TYPE, "digest": "config", "size": 1},
            "layers": [
                {
                    "mediaType": "application/octet-stream",
                    "digest": "blob",
                    "size": 4,
                    "annotations": {"kind": "deb", "name": "forky/x", "version": "1", pack_format.TITLE: "x_1_all.deb"},
                }
            ],
        }
    ),
    "config": json.dumps(
        {
            "format": pack_format.FORMAT,
            "profile": "registries",
            "cuda": False,
            "sources": False,
            "locks": {"debian.lock.json": "0" * 64},
            "left_out": [],
            "bazel": {"bazel": "7.7.1", "packages": {}, "wheels": {}},
            "base": None,
            "from_base": [],
        }
    ),
    "blob": b"blob",
}


def damage_pack(mutator: Mutator, sample: Documents) -> bytes:
    if mutator.random.random() < 0.3:
        return damage_tar(mutator, pack(sample))
    name = mutator.random.choice(["config", "index", "manifest"])
    return pack({**sample, name: mutator.json(sample[name])})


def read_pack(content: Documents | bytes, folder: Path) -> None:
    (folder / "pack").write_bytes(content if isinstance(content, bytes) else pack(content))
    with pack_format.Reader(str(folder / "pack")) as reader:
        assert isinstance(reader.pack, pack_format.Pack)
        for sha256, size, data in reader:
            assert isinstance(sha256, str) and size >= 0
            data.read(16)


# Locks -----------------------------------------------------------------------------------------------------------

REQUIREMENTS = (
    f"# Comment, naïve\none==1.0 \\\n    --hash=sha256:{'a' * 64} \\\n    --hash=sha256:{'b' * 64}\n    # via two\n"
    f"Two_x.y[extra,more]==2!1.0+local ; python_version < '4' --hash=sha256:{'c' * 64}\n"
)


def both_readers(text: str, folder: Path) -> None:
    """The readers for Python and for Starlark take the same, or both refuse it."""
    packages, error = READER["parse_lock"](text, "lock")
    try:
        found = locks.requirements(text)
    except locks.InputsError:
        assert error, f"only the Starlark reader takes it: {packages}"
        raise
    assert not error, f"only the Python reader takes it: {error}"
    assert {name.replace("-", "_"): pin for name, pin in found.items()} == {
        name: locks.Requirement(each["version"], tuple(sorted(each["hashes"]))) for name, each in packages.items()
    }


def small_lock(name: str, key: str, most: int = 3) -> str:
    """The first entries of a lock."""
    content = json.loads(LOCK[name])
    kept = dict(list(content[key].items())[:most])
    sets = {each: [entry for entry in entries if entry in kept] for each, entries in content.get("sets", {}).items()}
    return json.dumps({**content, key: kept, **({"sets": dict(list(sets.items())[:2])} if sets else {})})


SMALL_LOCKS = {
    locks.CRATES_LOCK: small_lock(locks.CRATES_LOCK, "crates"),
    locks.DEBIAN_LOCK: small_lock(locks.DEBIAN_LOCK, "packages"),
    locks.MODELS_LOCK: json.dumps(
        {
            "models": {
                **json.loads(LOCK[locks.MODELS_LOCK])["models"],
                "of_a_hub": {
                    "registry": "hub",
                    "repository": "org/name",
                    "revision": "main",
                    "commit": "c" * 40,
                    "license": "mit",
                    "files": {"config.json": {"sha256": "a" * 64, "size": 2}},
                },
                "of_a_folder": {
                    "registry": "folder",
                    "folder": "models",
                    "license": "mit",
                    "files": {"config.json": {"sha256": "b" * 64, "size": 2}},
                },
            }
        }
    ),
    locks.ARM64_LOCK: REQUIREMENTS.replace("naïve", "plain"),
    locks.REQUIREMENTS_LOCK: REQUIREMENTS.replace("naïve", "plain"),
    locks.SOURCES_LOCK: small_lock(locks.SOURCES_LOCK, "sources", 99),
}


def damage_locks(mutator: Mutator, sample: dict[str, str]) -> dict[str, str]:
    name = mutator.random.choice(sorted(sample))
    text = sample[name]
    return {**sample, name: mutator.text(text) if name.endswith(".txt") else mutator.json(text)}


def read_locks(content: dict[str, str], folder: Path) -> None:
    for name, text in content.items():
        _, error = JSON_READER["read_lock"](text, name) if name.endswith(".json") else (None, None)
        try:
            twice = locks.parse_json(text, name) is None
        except locks.InputsError as refused:
            twice = "twice" in str(refused)
        assert error or not twice, "only the Starlark reader takes it"
        (folder / name).write_bytes(text.encode(errors="surrogatepass"))
    for each in locks.pinned({name: folder / name for name in content}):
        assert all(re.fullmatch("[0-9a-f]{64}", sha256) for sha256 in each.sha256)
        assert isinstance(each.key, str) and isinstance(each.version, str)


TARGETS = {
    "deb822": Target(
        [STANZA], any_text, read_index, (debian.DebianError,), ["Package: x\n", "\n\n", "\nVersion:", " (= ", " | "]
    ),
    "ar": Target(
        [deb({"control.tar": corpus.tar(corpus.member("./control", data=corpus.CONTROL)), "data.tar": TARS[0]})],
        any_bytes,
        read_ar,
        (errors.UserError,),
        ["!<arch>\n", "data.tar.xz", "`\n"],
    ),
    "deb": Target([corpus.package(TARS[0])], any_bytes, read_ar, (errors.UserError,)),
    "tar": Target(TARS, damage_tar, read_tar, (errors.UserError,)),
    "sdist": Target([gzip.compress(TARS[0], mtime=0), TARS[1]], any_bytes, read_sdist, (errors.UserError,)),
    "wheel": Target([WHEEL], any_bytes, read_wheel, (errors.UserError,)),
    "finished_wheel": Target([WHEEL], any_bytes, read_finished_wheel, (finished.WheelError,)),
    # Any text is HTML: only addresses can be wrong.
    "index_html": Target(
        [HTML],
        any_text,
        read_page,
        (pypi.PyPIError,),
        ["<a href=", "</a>", "&#0;", "#md5", "//[::1", '<a href="http://[">x</a>'],
        least=0.001,
    ),
    "index_json": Target([JSON], any_json, read_page, (pypi.PyPIError,)),
    "pack": Target([PACK], damage_pack, read_pack, (pack_format.PackError,)),
    "layout": Target([documents()], damage_documents, read_layout, (layout.LayoutError,)),
    "reference": Target(
        ["localhost:5000/a/b_c:tag", f"registry.example.org/a@sha256:{'0' * 64}", "[::1]:1/a--b:1.2_3"],
        any_text,
        read_reference,
        (reference.ReferenceError,),
        ["a" * 200 + "!", "-" * 200, "localhost", "/", ":", "@sha256:"],
    ),
    "requirements": Target(
        [REQUIREMENTS], any_text, both_readers, (locks.InputsError,), ["==", "--hash=sha256:", "one", "\nONE==2", "[x]"]
    ),
    "locks": Target([SMALL_LOCKS], damage_locks, read_locks, (locks.InputsError,)),
}


@pytest.fixture
def fresh(tmp_path: Path) -> Callable[[], Path]:
    """Makes an empty folder per call."""
    counter = iter(range(1 << 62))

    def make() -> Path:
        folder = tmp_path / str(next(counter))
        folder.mkdir()
        return folder

    return make


@pytest.mark.parametrize("name", TARGETS)
def test_intact_input_is_taken(name: str, fresh: Callable[[], Path]) -> None:
    for sample in TARGETS[name].samples:
        TARGETS[name].read(sample, fresh())


@pytest.mark.parametrize("name", TARGETS)
def test_damaged_input_is_taken_or_refused(name: str, tmp_path: Path) -> None:
    target, refused = TARGETS[name], 0

    def stop(*_: object) -> None:
        raise TimeoutError(f"{name} does not end")

    signal.signal(signal.SIGALRM, stop)
    for number in range(ROUNDS):
        mutator = Mutator(f"{SEED} {name} {number}", target.tokens)
        damaged = target.damage(mutator, mutator.random.choice(target.samples))
        folder = tmp_path / str(number)
        folder.mkdir()
        signal.alarm(_MOST_SECONDS)
        try:
            target.read(damaged, folder)
        except target.refusals as error:
            refused += 1
            assert len(str(error).splitlines()) == 1, f"round {number}: more than one line: {error}"
        except BaseException as error:
            pytest.fail(
                f"{name}, FUZZ_SEED={SEED}, round {number}: expected {target.refusals}, found {error!r:.500} on"
                f" {damaged!r:.2000}"
            )
        finally:
            signal.alarm(0)
            remove(folder)
    assert refused >= ROUNDS * target.least, f"only {refused} of {ROUNDS} inputs were refused"


# What two readers took differently, or one took silently ------------------------------------------------------------


@pytest.mark.parametrize("name", [name for name in SMALL_LOCKS if name.endswith(".json")])
def test_a_lock_with_a_key_twice_is_refused(name: str, tmp_path: Path) -> None:
    """By the readers for Python and for Starlark."""
    section = {
        locks.CRATES_LOCK: "crates",
        locks.DEBIAN_LOCK: "packages",
        locks.MODELS_LOCK: "models",
        locks.SOURCES_LOCK: "sources",
    }[name]
    key = next(iter(json.loads(SMALL_LOCKS[name])[section]))
    text = SMALL_LOCKS[name].replace(f'"{section}": {{', f'"{section}": {{"{key}": {{}}, ', 1)
    with pytest.raises(locks.InputsError, match=f"locks/{name}: expected each key once, found '{key}' twice"):
        read_locks({**SMALL_LOCKS, name: text}, tmp_path)
    assert JSON_READER["read_lock"](SMALL_LOCKS[name], "lock") == (json.loads(SMALL_LOCKS[name]), None)
    assert "expected each key once" in JSON_READER["read_lock"](text, "lock")[1]


@pytest.mark.parametrize("begin", ["", "<a", '<a href="', "<a href=x>", "<!--", "<script>"])
@pytest.mark.parametrize(
    "part",
    [" ", "<", "<a ", "<!", "<![", "</a", "&", '"', "a=", "/ ", "<a" + "\n" * 2000, "<a " + "x='y'," * 3000],
    ids=lambda part: ascii(part)[:9],
)
def test_a_page_of_an_index_is_read_in_linear_time(begin: str, part: str) -> None:
    """Each takes a second at most. By a regular expression, which backtracks, 2000 blanks took 6.5 s."""

    def stop(*_: object) -> None:
        raise TimeoutError("the reader does not end")

    page = (begin + part * ((4 << 20) // len(part))).encode()
    signal.signal(signal.SIGALRM, stop)
    signal.alarm(_MOST_SECONDS)
    try:
        pypi.parse_page(PAGE, page)
    except pypi.PyPIError as error:
        assert "tags and entities" in str(error)
    finally:
        signal.alarm(0)


def test_a_page_as_large_as_may_be_downloaded_is_read() -> None:
    link = '<a href="x-1.zip#sha256=0">x-1.zip</a>'
    page = link + " " * (download._DOCUMENT_BYTES - len(link) * 2) + link
    assert len(pypi.parse_page(PAGE, page.encode())) == 2


@pytest.mark.parametrize(
    "html",
    [
        "<A HREF='x-1.zip#sha256=0' data-requires-python='&gt;=3.9'>x-1.zip</A>",
        '<a\n  rel="internal"\n  href="x-1.zip#sha256=0"\n>\n  x-1.zip\n</a >',
        "<a href=x-1.zip#sha256=0><span>x-1.zip</span></a>",
        "<script>if (a<b && c) {</script><style>a > b {}</style><a href='x-1.zip#sha256=0'>x-1.zip</a>",
        f"<!-- {'licence ' * 5000} --><![CDATA[ x ]]><a href='x-1.zip#sha256=0'>x-1.zip</a>",
        "<a name=top>top</a><a>x-2.zip</a><a href='x-1.zip#sha256=0' href='other'>x-1.zip</a>",
        "<a href='x&#45;1.zip#sha256=0'>x&#45;1.zip</a>",
        # As devpi, Nexus and hand-written pages have it.
        '<a data-requires-python=">=3.9,<4" href="x-1.zip#sha256=0">x-1.zip</a>',
        "<a data-requires-python='>=3.9' href='x-1.zip#sha256=0' data-note='a > b'>x-1.zip</a>",
    ],
)
def test_the_links_of_a_page_are_found_however_they_are_written(html: str) -> None:
    wanted = {"filename": "x-1.zip", "url": PAGE + "x-1.zip", "hashes": {"sha256": "0"}}
    assert pypi.parse_page(PAGE, html.encode()) == [wanted]


@pytest.mark.parametrize("again", ["one", "ONE", "o-n.e", "O_n--e"])
def test_a_requirement_twice_is_refused_by_both_readers(again: str, tmp_path: Path) -> None:
    first = "o.n_e" if len(again) > 3 else "one"
    text = f"{first}==1 --hash=sha256:{'a' * 64}\n{again}==2 --hash=sha256:{'b' * 64}\n"
    assert "found two" in READER["parse_lock"](text, "lock")[1]
    with pytest.raises(locks.InputsError, match="expected one entry of 'o-?n-?e', found two"):
        both_readers(text, tmp_path)


def nested_index(image: Documents) -> Documents:
    """index.json names an index, which names the image."""
    nested = json.dumps({"schemaVersion": 2, "mediaType": INDEX, "manifests": [{"digest": "config", "size": 1}]})
    return {**image, "manifest": nested}


def nested_index_said_to_be_an_image(image: Documents) -> Documents:
    content = json.loads(nested_index(image)["manifest"])
    return {**image, "manifest": json.dumps({**content, "mediaType": layout.MANIFEST})}


def image_and_index_at_once(image: Documents) -> Documents:
    """What CVE-2021-41190 is about: one reader sees an image, another an index."""
    content = json.loads(image["manifest"])
    return {**image, "manifest": json.dumps({**content, "manifests": [{"digest": "config", "size": 1}]})}


def image_of_an_indexs_media_type(image: Documents) -> Documents:
    return {**image, "manifest": json.dumps({**json.loads(image["manifest"]), "mediaType": INDEX})}


def listed_as_an_index(image: Documents) -> Documents:
    return {**image, "index": image["index"].replace(layout.MANIFEST, INDEX)}


def digest_that_leads_out(image: Documents) -> Documents:
    content = json.loads(image["manifest"])
    return {**image, "manifest": json.dumps({**content, "config": {"digest": "sha256:../../../secret"}})}


INDEX = "application/vnd.oci.image.index.v1+json"


@pytest.mark.parametrize(
    "change",
    [
        nested_index,
        nested_index_said_to_be_an_image,
        image_and_index_at_once,
        image_of_an_indexs_media_type,
        listed_as_an_index,
        digest_that_leads_out,
    ],
)
def test_a_layout_that_another_reader_takes_for_something_else_is_refused(
    change: Callable[[Documents], Documents], tmp_path: Path
) -> None:
    (tmp_path / "secret").write_text("{}")
    write_documents(change(documents()), tmp_path / "image")
    with pytest.raises(layout.LayoutError, match="expected (an image|a digest)"):
        assert layout.Image(tmp_path / "image").config is not None


def with_text(name: str, old: str, new: str) -> Callable[[Documents], Documents]:
    """Changes the text of one document."""

    def change(image: Documents) -> Documents:
        assert old in image[name]
        return {**image, name: image[name].replace(old, new, 1)}

    return change


@pytest.mark.parametrize(
    ("name", "old", "new", "said"),
    [
        ("manifest", '"layers":', '"Layers": [], "layers":', "found 'Layers' in two spellings"),
        # Go folds the long s (U+017F) and the Kelvin sign (U+212A), too.
        ("manifest", '"layers":', '"layer\\u017f": [], "layers":', "in two spellings"),
        ("manifest", '"layers":', '"layers": [], "layers":', "found 'layers' twice"),
        ("manifest", '"layers":', '"Manifests": [], "layers":', "expected the key 'manifests', found 'Manifests'"),
        ("manifest", '"layers":', '"annotation\\u017f": {}, "layers":', "expected the key 'annotations', found"),
        ("manifest", '"mediaType":', '"MediaType":', "expected the key 'mediaType', found 'MediaType'"),
        ("index", '"digest":', '"Digest": "sha256:0", "digest":', "found 'Digest' in two spellings"),
        ("index", '"manifests":', '"Manifests": [], "manifests":', "found 'Manifests' in two spellings"),
        ("config", '"os":', '"rootFS": {}, "os":', "expected the key 'rootfs', found 'rootFS'"),
        ("config", '"Labels":', '"labels": {}, "Labels":', "found 'labels' in two spellings"),
        ("config", '"Labels":', '"cmd": [], "Labels":', "expected the key 'Cmd', found 'cmd'"),
        ("config", '"a": "b"', '"a": "b", "a": "c"', "found 'a' twice"),
    ],
)
def test_a_document_that_go_reads_as_another_is_refused(
    name: str, old: str, new: str, said: str, tmp_path: Path
) -> None:
    write_documents(with_text(name, old, new)(documents()), tmp_path / "image")
    with pytest.raises(layout.LayoutError, match=re.escape(said)):
        assert layout.Image(tmp_path / "image").config is not None


def test_labels_and_annotations_have_any_keys(tmp_path: Path) -> None:
    change = with_text("config", '"a": "b"', '"OS": "b", "cmd": "c"')
    write_documents(change(documents()), tmp_path / "image")
    assert layout.Image(tmp_path / "image").config["config"]["Labels"] == {"OS": "b", "cmd": "c"}


@pytest.mark.parametrize("encoding", ["utf-16", "utf-8-sig"])
def test_a_document_that_is_no_utf_8_is_refused(tmp_path: Path, encoding: str) -> None:
    image = documents()
    write_documents({**image, "config": image["config"].encode(encoding)}, tmp_path / "image")
    with pytest.raises(layout.LayoutError, match="expected JSON"):
        assert layout.Image(tmp_path / "image").config is not None


def remove(folder: Path) -> None:
    """Removes what one round has left."""
    shutil.rmtree(folder)
