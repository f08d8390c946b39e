"""Sizes come from the archives themselves, download volume from the kernel's counters, test counts from Bazel's last
lines.
"""

from __future__ import annotations

import gzip
import hashlib
import json
import pathlib
import zipfile

import fresh
import sizes

COUNTERS = """\
Inter-|   Receive                                                |  Transmit
 face |bytes    packets errs drop fifo frame compressed multicast|bytes    packets errs drop fifo \
colls carrier compressed
    lo: 5000000     100    0    0    0     0          0         0  5000000     100    0    0    0   \
  0       0          0
  eth0:    1234      10    0    0    0     0          0         0      999      10    0    0    0   \
  0       0          0
 wlan0:       6       1    0    0    0     0          0         0        0       0    0    0    0   \
  0       0          0
"""

SUMMARY = """\
INFO: Build completed, 1 test FAILED
//tests/images:container_test                                            SKIPPED
//tests/runtime:errors                                                    PASSED in 2.1s
//tests/runtime:imports                                          (cached) PASSED in 1.0s
//tests/wheels:pip                                                        FAILED in 3.0s
//tests/wheels:tags                                              FAILED TO BUILD
  //tests/wheels:not_a_summary_line PASSED

Executed 2 out of 4 tests: 2 tests pass, 1 fails locally, and 1 was skipped.
"""


def test_received_leaves_out_the_loopback() -> None:
    assert fresh.received(COUNTERS) == 1240


def test_counts_are_by_status() -> None:
    assert fresh.test_counts(SUMMARY) == {"PASSED": 2, "FAILED": 1, "SKIPPED": 1, "FAILED TO BUILD": 1}


def _wheel(path: pathlib.Path, files: dict[str, bytes]) -> pathlib.Path:
    with zipfile.ZipFile(path, "w") as archive:
        for name, content in files.items():
            archive.writestr(name, content)
    return path


def test_wheel_rows_tell_the_official_file_from_one_of_its_size(tmp_path: pathlib.Path) -> None:
    ours = _wheel(tmp_path / "a-1+ours.whl", {"lib/made.so": b"x" * 3000, "lib/same.so": b"yy", "a.py": b""})
    official = _wheel(
        tmp_path / "a-1.whl", {"lib/made.so": b"z" * 3000, "lib/same.so": b"yy", "lib/left_out.so": b"", "a.py": b""}
    )
    rows = sizes.wheel_rows(ours, official)
    assert [row[0] for row in rows] == ["**a** (wheel)", "lib/made.so", "lib/same.so"]
    assert rows[1] == ["lib/made.so", "3.0 kB", "3.0 kB", "1.00"]
    assert rows[2][-1] == "same file"


def test_wheel_without_an_official_one_has_sizes_only(tmp_path: pathlib.Path) -> None:
    ours = _wheel(tmp_path / "a-1+ours.whl", {"lib/made.so": b"x" * 3000, "a.py": b""})
    (_, size, *rest), library = sizes.wheel_rows(ours, None)
    assert size == f"{ours.stat().st_size / 1e3:.1f} kB" and rest == ["none", ""]
    assert library == ["lib/made.so", "3.0 kB", "none", ""]


def _blob(layout: pathlib.Path, data: bytes) -> dict:
    digest = hashlib.sha256(data).hexdigest()
    folder = layout / "blobs/sha256"
    folder.mkdir(parents=True, exist_ok=True)
    (folder / digest).write_bytes(data)
    return {"digest": "sha256:" + digest, "size": len(data)}


def test_layer_rows_are_in_order_with_names_and_their_sum(tmp_path: pathlib.Path) -> None:
    layers = [_blob(tmp_path, gzip.compress(bytes(count))) for count in (4_000_000, 2_000_000)]
    kind = "application/vnd.oci.image.manifest.v1+json"
    content = {"mediaType": kind, "config": _blob(tmp_path, b"{}"), "layers": layers}
    manifest = {"mediaType": kind, **_blob(tmp_path, json.dumps(content).encode())}
    (tmp_path / "index.json").write_text(json.dumps({"manifests": [manifest]}))
    rows = sizes.layer_rows(tmp_path, {layers[1]["digest"]: "//a:named"})
    assert [(name, unpacked) for name, _, unpacked in rows] == [
        (layers[0]["digest"][7:19], "4.0 MB"),
        ("//a:named", "2.0 MB"),
        ("**all layers**", "6.0 MB"),
    ]
    assert rows[0][1] == f"{layers[0]['size'] / 1e3:.1f} kB"


def test_an_option_costs_its_layer(tmp_path: pathlib.Path) -> None:
    layer = tmp_path / "layer.tar.gz"
    layer.write_bytes(gzip.compress(bytes(3_000_000)))
    size = f"{layer.stat().st_size / 1e3:.1f} kB"
    rows = sizes.option_rows({"--with_one": ("+", layer), "--no_other": ("−", layer)})
    assert rows == [["`--with_one`", f"+{size}", "+3.0 MB"], ["`--no_other`", f"−{size}", "−3.0 MB"]]
