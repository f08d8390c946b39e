"""Packs this workspace, then builds, tests and pushes a copy of it from the pack without a network, and compares the
digests.

The second half runs in a network namespace with loopback only, an empty home and empty caches. It has the sources, the
pack, and what any Linux machine has.
"""

from __future__ import annotations

import argparse
import errno
import fcntl
import json
import os
import pathlib
import shutil
import socket
import struct
import subprocess
import sys
import time
import urllib.request

from oci.registry_server import registry
from release.private.reproduce.second_workspace import SecondWorkspace, differences, digests
from tests.proofs import proof
from tools.launcher import pack_format

# Seconds for small, medium, large and enormous tests: tests are slower while other actions run.
TIMEOUTS = "--test_timeout=600,900,1800,3600"
SIOCGIFFLAGS, SIOCSIFFLAGS, IFF_UP = 0x8913, 0x8914, 1
# In a network reserved for documentation (RFC 5737): no host answers, but a machine with a route would try.
ELSEWHERE = ("192.0.2.1", 443)
MANIFESTS = "application/vnd.oci.image.index.v1+json, application/vnd.oci.image.manifest.v1+json"


def raise_loopback() -> None:
    """Does what `ip link set lo up` does (netdevice(7)): loopback is down in a new namespace."""
    with socket.socket(socket.AF_INET, socket.SOCK_DGRAM) as control:
        name, flags = struct.unpack("16sh", fcntl.ioctl(control, SIOCGIFFLAGS, struct.pack("16sh", b"lo", 0)))
        fcntl.ioctl(control, SIOCSIFFLAGS, struct.pack("16sh", name, flags | IFF_UP))


def prove_that_there_is_no_network() -> None:
    """Raises AssertionError if there is a network."""
    names = [name for _, name in socket.if_nameindex()]
    assert names == ["lo"], f"expected loopback alone, found {names}"
    try:
        socket.create_connection(ELSEWHERE, timeout=5).close()
    except OSError as error:
        assert error.errno == errno.ENETUNREACH, f"expected no network to be reachable, found {error}"
    else:
        raise AssertionError(f"{ELSEWHERE} was reached")
    print("no network: lo is the only interface, a connection fails with ENETUNREACH", flush=True)


def inside(options: argparse.Namespace) -> int:
    """The half without a network: the README's three commands, in a copy of the workspace."""
    raise_loopback()
    prove_that_there_is_no_network()
    place = options.place
    home, scratch, served = (place / name for name in ("home", "tmp", "registry"))
    for folder in (home, scratch, served):
        folder.mkdir(parents=True)
    # Use nothing of the machine that packed: no caches, no checkouts, no user settings.
    for name in list(os.environ):
        if name.startswith(("MLC_", "XDG_", "PIP_", "CARGO_")):
            del os.environ[name]
    airgap = {"MLC_AIRGAP": str(options.pack), "MLC_AIRGAP_DIGEST": options.digest}
    environment = {"HOME": str(home), "TMPDIR": str(scratch), **airgap}
    with registry(options.registry, served) as port, SecondWorkspace(options.workspace, place, **environment) as second:

        def run(command: str, *arguments: str) -> None:
            began = time.monotonic()
            second.bazel(command, *config, *proof.QUIET, *arguments, stdout=None)
            print(f"{time.monotonic() - began:.0f} s without a network: {command} {' '.join(arguments)}", flush=True)

        config = ["--config=cuda"] if options.cuda else []
        began = time.monotonic()
        second.bazel("version", stdout=None)
        print(f"{time.monotonic() - began:.0f} s to import the pack and to install Bazel from it", flush=True)
        run("build", "//images:" + options.first_image, "//wheels/...")
        # All tests: none needs a network, and the proofs, which start their own Bazel, are manual.
        run("test", TIMEOUTS, "//tests/...")
        run(
            "run",
            "//images:push",
            "--",
            "--repository",
            f"127.0.0.1:{port}/team/{options.first_image}",
            "--tag",
            "airgap",
            "--unsigned",
        )
        request = urllib.request.Request(
            f"http://127.0.0.1:{port}/v2/team/{options.first_image}/manifests/airgap", headers={"Accept": MANIFESTS}
        )
        with urllib.request.urlopen(request) as answer:
            pushed = answer.headers["Docker-Content-Digest"]
        binaries = proof.bazel_bin(second, *config)
        layout = json.loads((binaries / "images" / options.first_image / "index/index.json").read_text())
        assert pushed == layout["manifests"][0]["digest"], (
            f"the registry has {pushed}, the build {layout['manifests'][0]['digest']}"
        )
        options.found.write_text(
            json.dumps({"pushed": pushed, "digests": digests([binaries / artifact for artifact in options.artifacts])})
        )
    return 0


def outside(options: argparse.Namespace) -> int:
    """Packs, runs the other half without a network, and compares."""
    place = proof.place()
    first = digests([pathlib.Path(artifact) for artifact in options.artifacts])
    pack, again, found = place / "one.pack", place / "two.pack", place / "found.json"
    cuda = os.environ.get("MLC_CUDA") == "1"
    with SecondWorkspace(options.workspace, place / "packing") as packing:
        for path in (pack, again):
            began = time.monotonic()
            packing.bazel("run", *proof.QUIET, *(["--config=cuda"] if cuda else []), "//tools:pack", "--", str(path))
            print(f"packed {path.stat().st_size / 1e6:.0f} MB in {time.monotonic() - began:.0f} s", flush=True)
    shutil.rmtree(place / "packing")
    same = subprocess.run(["cmp", str(pack), str(again)]).returncode == 0
    again.unlink()
    with pack_format.Reader(str(pack)) as reader:
        digest = "sha256:" + reader.pack.name
    # As root, containers need full privileges; other users need a user namespace to create a network namespace.
    enter = ["unshare", "--net"] if os.geteuid() == 0 else ["unshare", "--user", "--map-root-user", "--net"]
    more = [f"--place={place / 'inside'}", f"--pack={pack}", f"--digest={digest}", f"--found={found}"]
    more += ["--cuda"] if cuda else []
    code = subprocess.run(
        [*enter, sys.executable, __file__, *more, *sys.argv[1:]],
        env={**os.environ, "PYTHONPATH": os.pathsep.join(sys.path)},
    ).returncode
    if code:
        print(f"the half without a network failed ({code})")
        return 1
    second = json.loads(found.read_text())
    different = differences(first, second["digests"], "the one without a network")
    print(
        f"the two packs are {'the same' if same else 'different'}; pushed {second['pushed']}; {len(first)} files"
        f" compared, {len(different)} differ"
    )
    print("\n".join(different))
    return 0 if first and same and not different else 1


def main() -> int:
    parser = proof.parser(__doc__, artifacts=True, registry=True)
    parser.add_argument("--first_image", required=True, help="the image to push")
    parser.add_argument("--place", type=pathlib.Path, help="folder for the half without a network")
    parser.add_argument("--pack", type=pathlib.Path, help="the pack to build from")
    parser.add_argument("--digest", help="its digest")
    parser.add_argument("--found", type=pathlib.Path, help="file to write the digests to")
    parser.add_argument("--cuda", action="store_true", help="the pack includes CUDA")
    options = parser.parse_args()
    return inside(options) if options.pack else outside(options)


if __name__ == "__main__":
    sys.exit(main())
