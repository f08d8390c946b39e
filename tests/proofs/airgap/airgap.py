"""Packs this workspace, then builds, tests and pushes a copy of it out of the pack where there is no network, and
compares the digests.

The second half runs in a network namespace that has nothing but loopback, with an empty home and empty caches: nothing
is there but the
sources, the pack, and what any Linux machine has.
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

OPTIONS = ["--color=no", "--curses=no", "--show_progress_rate_limit=60"]
# Seconds for small, medium, large and enormous tests: a build beside others is no measure of how long a test takes.
TIMEOUTS = "--test_timeout=600,900,1800,3600"
SIOCGIFFLAGS, SIOCSIFFLAGS, IFF_UP = 0x8913, 0x8914, 1
# Of documentation's own network (RFC 5737): nobody is there, but a machine with a route would try.
ELSEWHERE = ("192.0.2.1", 443)
MANIFESTS = "application/vnd.oci.image.index.v1+json, application/vnd.oci.image.manifest.v1+json"


def raise_loopback() -> None:
    """What `ip link set lo up` does (netdevice(7)): a new namespace has it down."""
    with socket.socket(socket.AF_INET, socket.SOCK_DGRAM) as control:
        name, flags = struct.unpack("16sh", fcntl.ioctl(control, SIOCGIFFLAGS, struct.pack("16sh", b"lo", 0)))
        fcntl.ioctl(control, SIOCSIFFLAGS, struct.pack("16sh", name, flags | IFF_UP))


def prove_that_there_is_no_network() -> None:
    """Raises AssertionError where there is a network."""
    names = [name for _, name in socket.if_nameindex()]
    assert names == ["lo"], f"expected loopback alone, found {names}"
    try:
        socket.create_connection(ELSEWHERE, timeout=5).close()
    except OSError as error:
        assert error.errno == errno.ENETUNREACH, f"expected that no network is reached, found {error}"
    else:
        raise AssertionError(f"{ELSEWHERE} was reached")
    print("no network: interfaces are lo alone, a connection fails with ENETUNREACH", flush=True)


def inside(options: argparse.Namespace) -> int:
    """The half without a network: the three commands of the README, in a copy of the workspace."""
    raise_loopback()
    prove_that_there_is_no_network()
    place, workspace = options.place, options.workspace_file.resolve().parent
    home, scratch, served = (place / name for name in ("home", "tmp", "registry"))
    for folder in (home, scratch, served):
        folder.mkdir(parents=True)
    # Nothing of the machine that packed: no caches, no checkouts, no settings of the user's.
    for name in list(os.environ):
        if name.startswith(("MLC_", "XDG_", "PIP_", "CARGO_")):
            del os.environ[name]
    environment = {"HOME": str(home), "TMPDIR": str(scratch), "MLC_AIRGAP": str(options.pack)}
    with registry(options.registry, served) as port, SecondWorkspace(workspace, place, **environment) as second:

        def run(command: str, *arguments: str) -> None:
            began = time.monotonic()
            second.bazel(command, *config, *OPTIONS, *arguments, stdout=None)
            print(f"{time.monotonic() - began:.0f} s without a network: {command} {' '.join(arguments)}", flush=True)

        config = ["--config=cuda"] if options.cuda else []
        began = time.monotonic()
        second.bazel("version", stdout=None)
        print(f"{time.monotonic() - began:.0f} s to import the pack and to install Bazel from it", flush=True)
        run("build", "//images:" + options.first_image, "//wheels/...")
        # All of them: what needs a network is no test (tests read no network), and what has a Bazel of its own is
        # manual.
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
        binaries = pathlib.Path(second.bazel("info", *config, "--color=no", "bazel-bin").stdout.strip())
        layout = json.loads(
            (binaries / "images" / options.first_image / options.first_image / "index.json").read_text()
        )
        assert pushed == layout["manifests"][0]["digest"], (
            f"the registry has {pushed}, the build {layout['manifests'][0]['digest']}"
        )
        options.found.write_text(
            json.dumps({"pushed": pushed, "digests": digests([binaries / artifact for artifact in options.artifacts])})
        )
    return 0


def outside(options: argparse.Namespace) -> int:
    """Packs, has the other half run where no network is, and compares."""
    place = pathlib.Path(os.environ["TEST_TMPDIR"]).resolve()
    workspace = options.workspace_file.resolve().parent
    first = digests([pathlib.Path(artifact) for artifact in options.artifacts])
    pack, again, found = place / "one.pack", place / "two.pack", place / "found.json"
    cuda = os.environ.get("MLC_CUDA") == "1"
    with SecondWorkspace(workspace, place / "packing") as packing:
        for path in (pack, again):
            began = time.monotonic()
            packing.bazel("run", *OPTIONS, *(["--config=cuda"] if cuda else []), "//tools:pack", "--", str(path))
            print(f"packed {path.stat().st_size / 1e6:.0f} MB in {time.monotonic() - began:.0f} s", flush=True)
    shutil.rmtree(place / "packing")
    same = subprocess.run(["cmp", str(pack), str(again)]).returncode == 0
    again.unlink()
    # Root's containers need a root that may do all; anyone else makes a user namespace to be allowed one of the
    # network.
    enter = ["unshare", "--net"] if os.geteuid() == 0 else ["unshare", "--user", "--map-root-user", "--net"]
    more = [f"--place={place / 'inside'}", f"--pack={pack}", f"--found={found}", *(["--cuda"] if cuda else [])]
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
        f"two packs are {'the same' if same else 'different'}; pushed {second['pushed']}; {len(first)} files compared,"
        f" {len(different)} differ"
    )
    print("\n".join(different))
    return 0 if first and same and not different else 1


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--workspace_file", type=pathlib.Path, required=True, help="a file at the workspace's root")
    parser.add_argument("--registry", type=os.path.abspath, required=True, help="docker-registry")
    parser.add_argument("--first_image", required=True, help="the image that is pushed")
    parser.add_argument("--artifacts", nargs="+", required=True, help="outputs of this build, as paths below bazel-bin")
    parser.add_argument("--place", type=pathlib.Path, help="folder for what is made without a network")
    parser.add_argument("--pack", type=pathlib.Path, help="the pack to build out of")
    parser.add_argument("--found", type=pathlib.Path, help="file to write the digests to")
    parser.add_argument("--cuda", action="store_true", help="whether the pack is one with CUDA")
    options = parser.parse_args()
    return inside(options) if options.pack else outside(options)


if __name__ == "__main__":
    sys.exit(main())
