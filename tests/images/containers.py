"""Containers as tests start them: runc runs them, from a bundle that umoci unpacks.

With root, the container's users are the machine's and the test sees what a user of Docker sees. Without, there is one
user, who is root in the container's user namespace: all but the image's own user is tested.
"""

from __future__ import annotations

import json
import os
import pathlib
import shutil
import subprocess
import sys
import uuid
from typing import Any

from oci import enter_root
from oci.layout import Image
from oci.layout_writer import write_plain

IMAGE = pathlib.Path(os.environ["IMAGE"])

# How many threads TVM takes: in the container as outside (pytest_test, tests/defs.bzl).
THREADS = ("OMP_NUM_THREADS", "TVM_NUM_THREADS")

HOW_TO_EXCLUDE = (
    "This machine could not start a container. It needs root, or user namespaces (sysctl"
    " kernel.unprivileged_userns_clone, kernel.apparmor_restrict_unprivileged_userns). To leave such tests out:"
    " --test_tag_filters=-container"
)


class Bundle:
    """An unpacked image that containers are started from."""

    def __init__(self, folder: pathlib.Path) -> None:
        self.folder = folder
        self.rootless = os.geteuid() != 0 or pathlib.Path("/proc/self/uid_map").read_text().split()[2] == "1"
        self.uid = 0 if self.rootless else 1000
        self.tools = self._tools()
        layout = folder / "layout"
        # Real files: a test's inputs are links, which lead nowhere in another root. umoci reads no zstd.
        image = Image(IMAGE)
        if image.has_zstd:
            write_plain(image, layout)
        else:
            shutil.copytree(IMAGE, layout)
            (layout / "index.json").chmod(0o644)
        # umoci knows an image by a name, which Bazel's layouts do not give.
        index = json.loads((layout / "index.json").read_text())
        index["manifests"][0]["annotations"] = {"org.opencontainers.image.ref.name": "image"}
        (layout / "index.json").write_text(json.dumps(index))
        options = ["--rootless"] if self.rootless else []
        unpacked = self.tool(
            "/usr/bin/umoci.unwrapped", "unpack", *options, "--image", f"{layout}:image", str(folder / "bundle")
        )
        assert unpacked.returncode == 0, f"umoci could not unpack {IMAGE}:\n{unpacked.stderr}\n{HOW_TO_EXCLUDE}"
        self.config = json.loads((folder / "bundle/config.json").read_text())

    def _tools(self) -> pathlib.Path:
        tools = self.folder / "tools"
        source = pathlib.Path(os.environ["RUNC"]).parents[2]
        for part in ("lib", "lib64", "usr"):
            shutil.copytree(source / part, tools / part)
        return tools

    def tool(self, *command: str, **options: Any) -> subprocess.CompletedProcess:
        """Runs a program of the container tools with nothing of the machine but its kernel and the test's folders."""
        enter = [
            sys.executable,
            enter_root.__file__,
            "--root",
            str(self.tools),
            f"--bind={self.folder}={self.folder}",
            "--",
        ]
        options = {
            "stdout": subprocess.PIPE,
            "stderr": subprocess.PIPE,
            "stdin": subprocess.DEVNULL,
            "text": True,
        } | options
        return subprocess.run([*enter, *command], check=False, **options)

    def run(
        self,
        *command: str,
        mounts: dict[str, pathlib.Path] | None = None,
        volumes: dict[str, pathlib.Path] | None = None,
        read_only: bool = False,
        user: int | None = None,
        group: int | None = None,
        **options: Any,
    ) -> subprocess.CompletedProcess:
        """Starts a container, as `docker run --network=none IMAGE COMMAND` would.

        Args:
            command: what follows the image's name.
            mounts: path in the container → folder outside, writable.
            volumes: the same as Kubernetes mounts an image volume: read-only, and nothing there can be executed.
            read_only: whether the container's root is (a tmpfs is at /tmp then).
            user: uid to run as, where the test may choose one; the image's user by default.
            group: its gid, by default the same number.
            options: subprocess.run's.
        """
        config = json.loads(json.dumps(self.config))
        process = config["process"]
        process["args"] = [*self.entrypoint, *command]
        process["terminal"] = False
        process["env"] += [f"{name}={os.environ[name]}" for name in THREADS]
        config["root"]["readonly"] = read_only
        if read_only:
            config["mounts"].append(
                {"destination": "/tmp", "type": "tmpfs", "source": "tmpfs", "options": ["mode=1777"]}
            )
        for folders, options_of_mount in ((mounts, ["rbind", "rw"]), (volumes, ["rbind", "ro", "noexec"])):
            for inside, outside in (folders or {}).items():
                config["mounts"].append(
                    {"destination": inside, "type": "bind", "source": str(outside), "options": options_of_mount}
                )
        if self.rootless:
            process["user"] = {"uid": 0, "gid": 0}
        elif user is not None:
            process["user"] = {"uid": user, "gid": user if group is None else group}
        (self.folder / "bundle/config.json").write_text(json.dumps(config))
        state = ["--root", str(self.folder / "state"), "--rootless", "true" if self.rootless else "false"]
        return self.tool(
            "/usr/sbin/runc.unwrapped",
            *state,
            "run",
            "--bundle",
            str(self.folder / "bundle"),
            f"test-{uuid.uuid4().hex}",
            **options,
        )

    @property
    def entrypoint(self) -> list[str]:
        return self.image_config["Entrypoint"]

    @property
    def image_config(self) -> dict[str, Any]:
        """`config` of the image's configuration (image-spec, config.md)."""
        config: dict[str, Any] = Image(IMAGE).config["config"]
        return config


class Container(Bundle):
    """An unpacked image whose containers are known to start."""

    def __init__(self, folder: pathlib.Path) -> None:
        super().__init__(folder)
        started = self.run("python", "-c", "")
        assert started.returncode == 0, f"runc: {started.stderr}\n{HOW_TO_EXCLUDE}"

    def said(self, *command: str, code: int = 0, **options: Any) -> str:
        """What a command in a container prints, once it has ended with the exit status `code`."""
        ran = self.run(*command, **options)
        assert ran.returncode == code, f"{command}\n{ran.stdout}\n{ran.stderr}"
        return ran.stdout + (ran.stderr or "")
