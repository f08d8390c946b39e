"""Starts an image with this machine's podman or docker, otherwise with the runc that the build has.

    tools/bazel run //images:run                                    # a shell
    tools/bazel run //images:run -- smoke
    tools/bazel run //images:run -- --volume "$PWD":/workspace -- pytest /tests
    tools/bazel run //images:run -- --image mlc_llm --volume "$PWD":/workspace --publish 8000:8000 \\
        -- serve /workspace/MODEL

The container is removed when it stops. With runc it has no network; with --publish it has the machine's, where `serve`
listens on loopback unless --publish names another address.
"""

from __future__ import annotations

import argparse
import json
import os
import pathlib
import shutil
import signal
import subprocess
import sys
import tempfile

from fetch import arguments, errors, programs
from oci import container_tool, enter_root, layout_writer
from oci import layout as oci_layout


class RunError(Exception):
    """The container cannot be started; the message says why."""


def volume(text: str) -> tuple[str, str]:
    """Parses HOST:CONTAINER[:OPTIONS]; the folder must exist, because Docker would create it as root."""
    outside, _, inside = text.partition(":")
    folder = arguments.user_path(outside).absolute()
    if not inside.startswith("/"):
        raise argparse.ArgumentTypeError(
            f"expected HOST:CONTAINER with an absolute path in the container, found {text!r}"
        )
    if not folder.is_dir():
        raise argparse.ArgumentTypeError(f"expected a folder, found none at {folder}")
    return str(folder), inside


def ports(text: str) -> str:
    """Checks [ADDRESS:]HOST:CONTAINER, two ports; an engine would complain late and not name the port."""
    *_, outside, inside = ["", *text.split(":")]
    if not (outside.isdigit() and inside.isdigit()):
        raise argparse.ArgumentTypeError(f"expected HOST:CONTAINER, two ports, found {text!r}")
    return text


def run_in_engine(
    tool: str, path: str, options: argparse.Namespace, image: oci_layout.Image, reference: str, loader: pathlib.Path
) -> int:
    """Becomes `podman run` or `docker run`; first loads the image unless the engine already has it.

    Raises:
        RunError: it cannot be loaded.
    """
    try:
        known = programs.run([path, "image", "inspect", "--format", "{{.Id}}", reference])
    except programs.ProgramError:
        known = ""
    # An engine identifies an image by its configuration's digest; Docker with containerd's store by its manifest's.
    if known.strip().removeprefix("sha256:") not in {
        digest.removeprefix("sha256:") for digest in (image.manifest["config"]["digest"], image.digest)
    }:
        print(f"run: loading {reference} into {tool}", file=sys.stderr, flush=True)
        if subprocess.run([str(loader.absolute())], env=container_tool.environment(tool), stdout=sys.stderr).returncode:
            raise RunError(f"{tool} could not load {reference}; see its output above")
    command = [path, "run", "--rm", "--interactive"]
    command += ["--tty"] if sys.stdin.isatty() else []
    command += ["--gpus", "all"] if options.gpus else []
    for outside, inside in options.volume:
        command += ["--volume", f"{outside}:{inside}"]
    for ports in options.publish:
        command += ["--publish", ports]
    os.execv(path, [*command, reference, *options.command])
    return 0


def run_in_runc(runc: pathlib.Path, options: argparse.Namespace, image: oci_layout.Image, umoci: str) -> int:
    """Unpacks the image with umoci and runs it; returns the command's exit status.

    Raises:
        RunError: GPUs are requested, or a port that the container cannot have, or the image cannot be unpacked.
    """
    if options.gpus:
        raise RunError(
            "runc alone gives a container no GPU: install podman or docker with the NVIDIA Container Toolkit"
        )
    host = published_host(options.publish)
    if host:
        print(
            f"run: runc alone gives a container no network, so it has this machine's; serve listens on {host}",
            file=sys.stderr,
            flush=True,
        )
    # Until the container runs, SIGTERM stops the unpacking.
    programs.interrupt_on_signals()
    rootless = os.geteuid() != 0
    scratch = pathlib.Path(tempfile.mkdtemp(prefix="run-"))
    try:
        print("run: unpacking the image for runc", file=sys.stderr, flush=True)
        # umoci needs an image name, which Bazel's layouts lack, and reads no zstd; otherwise the blobs stay in place.
        layout = scratch / "layout"
        layout.mkdir()
        if image.has_zstd:
            try:
                layout_writer.write_plain(image, layout)
            except (errors.UserError, OSError) as error:
                raise RunError(f"the image's layers cannot be unpacked: {error}") from None
        else:
            (layout / "oci-layout").write_bytes((image.folder / "oci-layout").read_bytes())
            (layout / "blobs").symlink_to((image.folder / "blobs").absolute())
            (layout / "index.json").write_bytes((image.folder / "index.json").read_bytes())
        index = json.loads((layout / "index.json").read_text())
        index["manifests"][0]["annotations"] = {"org.opencontainers.image.ref.name": "image"}
        (layout / "index.json").write_text(json.dumps(index))
        unpack = [
            umoci,
            "unpack",
            *(["--rootless"] if rootless else []),
            "--image",
            f"{layout}:image",
            str(scratch / "bundle"),
        ]
        try:
            programs.run(unpack, seconds=programs.SECONDS_OF_TRANSFER)
        except programs.ProgramError as error:
            raise RunError(f"umoci cannot unpack the image: {error}") from None
        shutil.rmtree(layout)
        file = scratch / "bundle/config.json"
        file.write_text(json.dumps(container_config(json.loads(file.read_text()), image, options, rootless, host)))
        # runc sees its own packages, what it runs, and the volumes.
        shown = [str(scratch), *(outside for outside, _ in options.volume)]
        binds = [word for folder in dict.fromkeys(shown) for word in ("--bind", f"{folder}={folder}")]
        enter = [sys.executable, enter_root.__file__, "--root", str(runc.resolve().parents[2]), *binds, "--"]
        process = subprocess.Popen(
            [
                *enter,
                "/usr/sbin/runc.unwrapped",
                *("--root", str(scratch / "state"), "--rootless", "true" if rootless else "false"),
                *("run", "--bundle", str(scratch / "bundle"), f"run-{os.getpid()}"),
            ],
            env={**os.environ, "TMPDIR": str(scratch)},
        )
        # The terminal sends the first to the container too.
        signal.signal(signal.SIGINT, signal.SIG_IGN)
        signal.signal(signal.SIGTERM, lambda *_: process.send_signal(signal.SIGTERM))
        return process.wait()
    finally:
        # Images have folders without the right to write.
        for folder, folders, _ in os.walk(scratch):
            for each in folders:
                if not os.path.islink(path := os.path.join(folder, each)):
                    os.chmod(path, 0o700)
        shutil.rmtree(scratch, ignore_errors=True)


def published_host(published: list[str]) -> str | None:
    """The address at which a container with the machine's network may listen, or None if it publishes nothing.

    Args:
        published: [ADDRESS:]HOST:CONTAINER of each port.

    Raises:
        RunError: only a network of the container's own could do that.
    """
    parsed = [text.rsplit(":", 2) for text in published]
    hosts = {words[0].strip("[]") if len(words) == 3 else "127.0.0.1" for words in parsed}
    if len(hosts) > 1 or "" in hosts or any(words[-1] != words[-2] for words in parsed):
        raise RunError(
            "runc alone gives a container this machine's network: expected --publish PORT:PORT, the same port twice,"
            f" and one address, found {', '.join(published)}. Install podman or docker, or pass --port to serve"
        )
    return next(iter(hosts), None)


def container_config(
    config: dict, image: oci_layout.Image, options: argparse.Namespace, rootless: bool, host: str | None
) -> dict:
    """umoci's runtime configuration (runtime-spec, config.md) with this run's command, volumes, user and network."""
    process, linux = config["process"], config["linux"]
    image_config = image.config["config"]
    process["args"] = [*image_config.get("Entrypoint", []), *(options.command or image_config.get("Cmd", []))]
    process["terminal"] = sys.stdin.isatty()
    if rootless:
        # The only user in the container, and in the namespace that enter_root makes.
        process["user"] = {"uid": 0, "gid": 0}
        for ids in ("uidMappings", "gidMappings"):
            linux[ids] = [{"containerID": 0, "hostID": 0, "size": 1}]
    for outside, words in options.volume:
        inside, _, modes = words.partition(":")
        mode = "ro" if "ro" in modes.split(",") else "rw"
        config["mounts"].append({"destination": inside, "type": "bind", "source": outside, "options": ["rbind", mode]})
    linux["namespaces"] = [each for each in linux["namespaces"] if each["type"] != "network"]
    if host is None:
        linux["namespaces"].append({"type": "network"})
    else:
        process["env"].append(f"MLC_LLM_HOST={host}")
    return config


def main() -> int:
    parser = arguments.Parser("//images:run", __doc__)
    for fixed in ("--umoci", "--version"):
        parser.add_argument(fixed, required=True, help=argparse.SUPPRESS)
    parser.add_argument("--runc", type=pathlib.Path, required=True, help=argparse.SUPPRESS)
    parser.add_argument("--layout", type=arguments.named_path, action="append", required=True, help=argparse.SUPPRESS)
    parser.add_argument("--loader", type=arguments.named_path, action="append", required=True, help=argparse.SUPPRESS)
    parser.add_argument("--image", help="the image to start (default: the first)")
    parser.add_argument(
        "--tool",
        choices=[*container_tool.ENGINES, "runc"],
        help="start it with this tool (default: the first that works; runc is the build's)",
    )
    parser.add_argument(
        "--volume",
        type=volume,
        action="append",
        default=[],
        metavar="HOST:CONTAINER",
        help="mount a folder; may be repeated",
    )
    parser.add_argument(
        "--publish",
        type=ports,
        action="append",
        default=[],
        metavar="[ADDRESS:]HOST:CONTAINER",
        help="publish a port; may be repeated",
    )
    parser.add_argument("--gpus", action="store_true", help="give the container all GPUs (NVIDIA Container Toolkit)")
    parser.add_argument("command", nargs=argparse.REMAINDER, help="the command and its arguments (default: a shell)")
    options = parser.parse_args()
    if options.command[:1] == ["--"]:
        del options.command[0]
    layouts, loaders = dict(options.layout), dict(options.loader)
    name = options.image or next(iter(layouts))
    if name not in layouts:
        parser.error(f"--image: expected {' or '.join(layouts)}, found {name!r}")
    image = oci_layout.Image(layouts[name])
    try:
        tool, path = container_tool.find(options.tool, otherwise="runc")
        if tool == "runc":
            return run_in_runc(options.runc, options, image, os.path.abspath(options.umoci))
        return run_in_engine(tool, path, options, image, f"{name}:{options.version}", loaders[name])
    except (RunError, container_tool.NoTool) as error:
        errors.tell("run", error)
        return 1
    except KeyboardInterrupt:
        return 130


if __name__ == "__main__":
    sys.exit(main())
