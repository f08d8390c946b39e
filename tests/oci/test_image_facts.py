"""What is said of an image is what its layers hold: sizes, packages, hidden files, copies, differences, the picture of
its folders.
"""

from __future__ import annotations

import json
import os
import pathlib
import tarfile
from collections.abc import Callable
from typing import Any

import pytest

from oci import image_facts
from oci.image_facts import ImageError, ImageFacts, Package
from oci.layer import Entry, Layer
from oci.layout import Image
from oci.report import treemap
from tests.oci.layouts import write_layout

SITE = "usr/local/lib/python3.11/dist-packages"


@pytest.fixture
def read(tmp_path: pathlib.Path) -> Callable[..., ImageFacts]:
    """Makes an image of layers and reads it."""

    def make(*layers: Any, name: str = "image", **kwargs: Any) -> ImageFacts:
        return image_facts.read(name, Image(write_layout(tmp_path / name, list(layers), **kwargs)), {})

    return make


def test_sizes_of_layers(read: Callable[..., ImageFacts], tmp_path: pathlib.Path) -> None:
    image = read({"a": b"1" * 1000, "folder/b": b"2" * 24}, {"folder/c": b""})
    assert [(layer.name, layer.origin, layer.unpacked, layer.files) for layer in image.layers] == [
        ("layer0", "//image:layer0", 1024, 2),
        ("layer1", "//image:layer1", 0, 1),
    ]
    compressed = [(tmp_path / "image/blobs" / layer.digest.replace(":", "/")).stat().st_size for layer in image.layers]
    assert [layer.compressed for layer in image.layers] == compressed
    assert (image.unpacked, image.compressed) == (1024, sum(compressed))
    assert [(path, file.size, file.layer) for path, file in image.largest_files(2)] == [
        ("a", 1000, 0),
        ("folder/b", 24, 0),
    ]
    assert not image.hidden and not image.duplicates()


def test_a_history_that_has_steps_without_a_layer(tmp_path: pathlib.Path) -> None:
    folder = write_layout(tmp_path / "image", [{"a": b"1"}])
    _edit_config(folder, history=[{"created_by": "ENV A=1", "empty_layer": True}, {"created_by": "/bin/sh -c make"}])
    (layer,) = image_facts.read("image", Image(folder), {}).layers
    assert (layer.origin, layer.name) == ("/bin/sh -c make", "layer 1")
    _edit_config(folder, history=None)
    (layer,) = image_facts.read("image", Image(folder), {}).layers
    assert (layer.origin, layer.name) == ("unknown", "layer 1")


def _edit_config(folder: pathlib.Path, **changes: Any) -> None:
    """Changes the configuration in place: nothing here compares blobs with their digests."""
    image = Image(folder)
    image.blob(image.config_digest).write_text(json.dumps({**image.config, **changes}))


def test_what_upper_layers_replace_and_remove_is_hidden(read: Callable[..., ImageFacts]) -> None:
    image = read(
        {
            "kept": b"k",
            "replaced": b"old",
            "gone": b"g",
            "tree/a/b": b"bb",
            "tree/c": b"c",
            "emptied/x": b"xx",
            "turned/y": b"y",
            "whitespace": b"w",
        },
        {
            "replaced": b"new",
            ".wh.gone": b"",
            ".wh.tree": b"",
            "emptied/.wh..wh..opq": b"",
            "emptied/z": b"z",
            "turned": b"a file now",
        },
    )
    assert {path for path, file in image.files.items() if file.kind == "file"} == {
        "kept",
        "replaced",
        "emptied/z",
        "turned",
        "whitespace",
    }
    assert image.files["replaced"].layer == 1
    assert {(path, file.size) for path, file in image.hidden} == {
        ("replaced", 3), ("gone", 1), ("tree/a/b", 2), ("tree/c", 1), ("emptied/x", 2), ("turned/y", 1)
    }  # fmt: skip
    assert not [path for path in image.files if ".wh." in path or path.startswith("tree")]
    assert "emptied" in image.files


def test_packages_with_the_size_of_their_files(read: Callable[..., ImageFacts]) -> None:
    debian = {
        "var/lib/dpkg/status.d/dash": (
            b"Package: dash\nVersion: 0.5\nArchitecture: amd64\nStatus: install ok installed\n"
        ),
        # As the package has it; on a merged /usr the file is elsewhere.
        "var/lib/dpkg/status.d/dash.md5sums": b"0  bin/dash\n0  usr/share/missing\n",
        "usr/bin/dash": b"d" * 70,
        "usr/lib/python3/dist-packages/six-1.dist-info/METADATA": b"Name: six\nVersion: 1\n",
        "var/lib/dpkg/status.d/python3-six": b"Package: python3-six\nVersion: 1-2\n",
        "var/lib/dpkg/status.d/python3-six.md5sums": b"0  usr/lib/python3/dist-packages/six-1.dist-info/METADATA\n",
    }
    python = {
        f"{SITE}/thing-1.2.dist-info/METADATA": b"Metadata-Version: 2.1\nName: Thing\nVersion: 1.2\n\nName: not this\n",
        f"{SITE}/thing-1.2.dist-info/RECORD": (
            b'thing/__init__.py,,\n"thing/a,b",,\n../../../bin/thing,,\nthing/gone.py,,\n'
        ),
        f"{SITE}/thing/__init__.py": b"1" * 5,
        f"{SITE}/thing/a,b": b"1" * 6,
        "usr/local/bin/thing": b"1" * 7,
        # Brought along inside another distribution: not installed.
        f"{SITE}/thing/_vendor/inner-1.dist-info/METADATA": b"Name: inner\nVersion: 1\n",
    }
    assert read(debian, python).packages == [
        Package("Debian", "dash", "0.5", 70),
        Package("Debian", "python3-six", "1-2", 21),
        Package("Python", "Thing", "1.2", 18),
    ]


def test_packages_of_an_image_with_dpkg(read: Callable[..., ImageFacts]) -> None:
    status = b"Package: a\nStatus: install ok installed\nVersion: 1\nArchitecture: amd64\n\n"
    status += b"Package: b\nStatus: deinstall ok config-files\nVersion: 2\n"
    image = read(
        {"var/lib/dpkg/status": status, "var/lib/dpkg/info/a:amd64.md5sums": b"0  usr/bin/a\n", "usr/bin/a": b"aa"}
    )
    assert image.packages == [Package("Debian", "a", "1", 2)]


def test_a_package_that_an_upper_layer_updates_is_there_once(read: Callable[..., ImageFacts]) -> None:
    status = "var/lib/dpkg/status.d/dash"
    image = read({status: b"Package: dash\nVersion: 1\n"}, {status: b"Package: dash\nVersion: 2\n"})
    assert [package.version for package in image.packages] == ["2"]


def test_duplicates_across_layers(read: Callable[..., ImageFacts]) -> None:
    image = read(
        {"a": b"same" * 100, "b": b"small"}, {"c": b"same" * 100, "d": b"same" * 100, "e": b"small", "f": b"", "g": b""}
    )
    found = [
        (duplicate.wasted, [(path, file.layer) for path, file in duplicate.files]) for duplicate in image.duplicates()
    ]
    assert found == [(800, [("a", 0), ("c", 1), ("d", 1)]), (5, [("b", 0), ("e", 1)])]


def test_hard_links_weigh_nothing(read: Callable[..., ImageFacts]) -> None:
    layer = Layer()
    layer.add_file("a", b"1" * 50, "test")
    layer.add_symlink("soft", "a", "test")
    layer.add("hard", Entry(tarfile.LNKTYPE, "test", target="a"))
    image = read(layer)
    assert {path: (file.kind, file.size, file.content) for path, file in image.files.items() if path != "a"} == {
        "soft": ("link", 0, "a"),
        "hard": ("hard link", 0, "a"),
    }
    assert image.unpacked == 50


def test_settings(read: Callable[..., ImageFacts]) -> None:
    config = {
        "Entrypoint": ["/bin/start", "two words"],
        "Env": ["B=2", "A=x=y"],
        "User": "mlc",
        "WorkingDir": "/w",
        "ExposedPorts": {"80/tcp": {}},
    }
    assert read({"a": b""}, config=config, labels={"version": "1.0"}).settings() == {
        "platform": "linux/amd64",
        "created": "2000-01-01T00:00:00Z",
        "entrypoint": "/bin/start 'two words'",
        "user": "mlc",
        "working directory": "/w",
        "ports": "80/tcp",
        "environment: A": "x=y",
        "environment: B": "2",
        "label: org.opencontainers.image.version": "1.0",
    }


def test_difference(read: Callable[..., ImageFacts]) -> None:
    common = {"usr/shared": b"s" * 500}
    status = "var/lib/dpkg/status.d/"
    before = read(
        common,
        {
            "gone": b"g" * 30,
            "grown": b"1",
            "same": b"same",
            f"{status}a": b"Package: a\nVersion: 1\n",
            f"{status}b": b"Package: b\nVersion: 1\n",
        },
        name="before",
        config={"User": "root", "Env": ["A=1"]},
    )
    after = read(
        common,
        {"same": b"same"},
        {
            "new": b"n" * 20,
            "grown": b"2" * 11,
            f"{status}a": b"Package: a\nVersion: 2\n",
            f"{status}c": b"Package: c\nVersion: 1\n",
        },
        name="after",
        config={"User": "mlc", "Env": ["A=1", "B=2"]},
    )
    difference = image_facts.compare(before, after)
    assert [layer.number for layer in difference.shared] == [0]
    assert [layer.number for layer in difference.added] == [1, 2]
    assert [layer.number for layer in difference.removed] == [1]
    assert difference.pull == after.layers[1].compressed + after.layers[2].compressed
    files = [
        (change.key, change.kind, change.growth) for change in difference.files if not change.key.startswith("var")
    ]
    assert files == [("gone", "removed", -30), ("new", "added", 20), ("grown", "changed", 10)]
    assert [(change.key, change.kind) for change in difference.packages] == [
        ("Debian a", "changed"),
        ("Debian b", "removed"),
        ("Debian c", "added"),
    ]
    assert [(change.key, change.before, change.after) for change in difference.settings] == [
        ("environment: B", None, "2"),
        ("user", "root", "mlc"),
    ]
    back = image_facts.compare(after, before)
    assert {(change.key, change.growth) for change in back.files} == {
        (change.key, -change.growth) for change in difference.files
    }


def test_a_file_of_the_same_size_with_other_content_or_mode_differs(read: Callable[..., ImageFacts]) -> None:
    other_mode = Layer()
    other_mode.add_file("a", b"1", "test", mode=0o755)
    before = read({"a": b"1"}, name="before")
    assert [change.kind for change in image_facts.compare(before, read({"a": b"2"}, name="content")).files] == [
        "changed"
    ]
    assert [change.kind for change in image_facts.compare(before, read(other_mode, name="mode")).files] == ["changed"]
    assert not image_facts.compare(before, read({"other": b""}, {"a": b"1"}, {".wh.other": b""}, name="layers")).files


def test_a_layer_is_read_once_for_all_images(tmp_path: pathlib.Path) -> None:
    known: dict[str, image_facts.LayerContent] = {}
    image_facts.read("one", Image(write_layout(tmp_path / "one", [{"a": b"1"}])), known)
    two = write_layout(tmp_path / "two", [{"a": b"1"}, {"b": b"2"}])
    (digest,) = known
    (two / "blobs" / digest.replace(":", "/")).unlink()
    assert set(image_facts.read("two", Image(two), known).files) == {"a", "b"}


@pytest.mark.parametrize(
    ("damage", "message"),
    [
        (lambda folder: (folder / "index.json").unlink(), "found no index.json"),
        (lambda folder: (folder / "index.json").write_text("no JSON"), "expected JSON, found "),
        (
            lambda folder: (folder / "index.json").write_text('{"manifests": []}'),
            "found .*: expected one image in index.json, found 0",
        ),
        (
            lambda folder: [blob.write_bytes(b"{}") for blob in (folder / "blobs/sha256").iterdir()],
            "expected an OCI image layout",
        ),
        (
            lambda folder: [
                blob.unlink() for blob in (folder / "blobs/sha256").iterdir() if blob.read_bytes()[:2] == b"\x1f\x8b"
            ],
            "No such file",
        ),
        # What zstd starts with: a layer that cannot be read here.
        (
            lambda folder: [
                blob.write_bytes(b"\x28\xb5\x2f\xfd")
                for blob in (folder / "blobs/sha256").iterdir()
                if blob.read_bytes()[:2] == b"\x1f\x8b"
            ],
            "expected an intact archive, found a damaged one",
        ),
    ],
)
def test_a_folder_that_is_no_image_is_said_in_one_line(
    tmp_path: pathlib.Path, damage: Callable[[pathlib.Path], Any], message: str
) -> None:
    folder = write_layout(tmp_path / "image", [{"a": b"1"}])
    damage(folder)
    with pytest.raises(ImageError, match=message) as error:
        for name, image in image_facts.named("image", folder).items():
            image_facts.read(name, image, {})
    assert "\n" not in str(error.value) and str(error.value).startswith("image: ")


def test_the_rectangles_of_folders_cover_the_picture(read: Callable[..., ImageFacts]) -> None:
    files = {f"folder{number % 4}/file{number}": bytes([number]) * (1000 + 97 * number) for number in range(30)}
    image = read(files)
    tiles = treemap.tiles(image.files, 1000, 600)
    root, *rest = tiles
    assert (root.path, root.size, root.x, root.y, root.width, root.height) == ("/", image.unpacked, 0, 0, 1000, 600)
    folders = [tile for tile in rest if tile.path.count("/") == 1]
    assert {tile.path: tile.size for tile in folders} == {
        f"/folder{number}": sum(len(data) for path, data in files.items() if path.startswith(f"folder{number}/"))
        for number in range(4)
    }
    # Areas are as sizes, and nothing overlaps or is left over.
    scale = sum(tile.width * tile.height for tile in folders) / image.unpacked
    assert scale * image.unpacked == pytest.approx((1000 - 4) * (600 - 19), rel=0.01)
    for tile in folders:
        assert tile.width * tile.height == pytest.approx(tile.size * scale, rel=0.01)
    leaves = [tile for tile in tiles if not tile.is_open]
    assert sum(tile.size for tile in leaves) == image.unpacked
    for number, one in enumerate(leaves):
        assert 0 <= one.x <= one.x + one.width <= 1000 and 0 <= one.y <= one.y + one.height <= 600
        for other in leaves[:number]:
            apart = (
                one.x + one.width <= other.x + 0.2
                or other.x + other.width <= one.x + 0.2
                or one.y + one.height <= other.y + 0.2
            )
            assert apart or other.y + other.height <= one.y + 0.2, (one, other)


def test_rectangles_are_the_published_example() -> None:
    # Bruls, Huizing, van Wijk, "Squarified Treemaps", figure 4: areas 6, 6, 4, 3, 2, 2, 1 in 6 by 4.
    found = [
        tuple(round(number, 2) for number in rectangle)
        for rectangle in treemap.squarify([6, 6, 4, 3, 2, 2, 1], 0, 0, 6, 4)
    ]
    assert found[:4] == [(0, 0, 3, 2), (0, 2, 3, 2), (3, 0, 1.71, 2.33), (4.71, 0, 1.29, 2.33)]
    assert sum(width * height for _, _, width, height in found) == pytest.approx(24, rel=0.01)


def test_the_picture_of_an_image_without_files(read: Callable[..., ImageFacts]) -> None:
    assert treemap.tiles(read({"empty": b""}).files, 1000, 600) == []


def test_the_runtime_image() -> None:
    image = image_facts.read("tvm_runtime", Image(pathlib.Path(os.environ["TVM_RUNTIME"])), {})
    assert [layer.name for layer in image.layers] == [
        "debian",
        "python",
        "dependencies",
        "test_dependencies",
        "tvm_prebuilt",
        "tvm_compiled",
        "application",
    ]
    sizes = {(package.ecosystem, package.name): package.size for package in image.packages}
    assert {name for name, size in sizes.items() if size < 1000} == {("Debian", "python-is-python3")}, (
        "a link is all that it brings"
    )
    assert sizes["Python", "apache-tvm"] > 200_000_000
    assert sizes["Debian", "libc6"] > 5_000_000
    # Few files belong to no package: ours, and what installation scripts would have made.
    assert 0 <= image.unpacked - sum(sizes.values()) < 5_000_000
    assert not image.hidden
