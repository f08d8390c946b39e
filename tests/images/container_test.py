"""An image does in a real container what it promises: runc runs it, from a bundle that umoci unpacks.

With root, the container's users are the machine's and the test sees what a user of Docker sees. Without, there is one user, who is
root in the container's user namespace: all but the image's own user is tested.
"""

from __future__ import annotations

import hashlib
import json
import os
import pathlib
import shutil
import subprocess
import sys
import tempfile
import unittest
import uuid

from oci import enter_root

IMAGE = pathlib.Path(os.environ["IMAGE"])
NAME = IMAGE.name
TESTS = os.environ.get("TESTS", "").split()
WHEELS = [pathlib.Path(path) for path in os.environ.get("WHEELS", "").split() if path.endswith(".whl")]

HAS_CUDA = any(wheel.name.startswith("apache_tvm_cuda-") for wheel in WHEELS)

HOW_TO_EXCLUDE = (
    "This machine could not start a container. It needs root, or user namespaces (sysctl kernel.unprivileged_userns_clone, "
    "kernel.apparmor_restrict_unprivileged_userns). To leave such tests out: --test_tag_filters=-container"
)

# Libraries that others in the image name and that the dynamic linker does not find, and why that is right.
UNMET = {
    "libcuda.so.1": "comes with the driver, from outside",
    "libcudart.so.13": "loaded by tvm_cuda before those that need it",
    "libcudnn.so.9": "an option of the image",
    "libtvm_runtime.so": "loaded by `import tvm` before those that need it",
    "libtvm_runtime_extra.so": "loaded by tvm_cuda before those that need it",
    "libnsl.so.2": "only the module nis needs it; left out on purpose",
    "libtirpc.so.3": "as libnsl.so.2",
    "libtvm_ffi.so": "loaded by `import tvm_ffi` before those that need it",
}


class Bundle:
    """An unpacked image that containers are started from."""

    def __init__(self, folder: pathlib.Path):
        self.folder = folder
        self.rootless = os.geteuid() != 0 or pathlib.Path("/proc/self/uid_map").read_text().split()[2] == "1"
        self.uid = 0 if self.rootless else 1000
        self.tools = self._tools()
        layout = folder / "layout"
        # Real files: a test's inputs are links, which lead nowhere in another root.
        shutil.copytree(IMAGE, layout)
        # umoci knows an image by a name, which Bazel's layouts do not give.
        index = json.loads((layout / "index.json").read_text())
        index["manifests"][0]["annotations"] = {"org.opencontainers.image.ref.name": "image"}
        (layout / "index.json").chmod(0o644)
        (layout / "index.json").write_text(json.dumps(index))
        options = ["--rootless"] if self.rootless else []
        unpacked = self.tool("/usr/bin/umoci.unwrapped", "unpack", *options, "--image", f"{layout}:image", str(folder / "bundle"))
        if unpacked.returncode:
            raise AssertionError(f"umoci could not unpack {IMAGE}:\n{unpacked.stderr}\n{HOW_TO_EXCLUDE}")
        self.config = json.loads((folder / "bundle/config.json").read_text())

    def _tools(self) -> pathlib.Path:
        tools = self.folder / "tools"
        source = pathlib.Path(os.environ["RUNC"]).parents[2]
        for part in ("lib", "lib64", "usr"):
            shutil.copytree(source / part, tools / part)
        return tools

    def tool(self, *command: str, **options) -> subprocess.CompletedProcess:
        """Runs a program of the container tools with nothing of the machine but its kernel and the test's folders."""
        enter = [sys.executable, enter_root.__file__, "--root", str(self.tools), f"--bind={self.folder}={self.folder}", "--"]
        options = {"stdout": subprocess.PIPE, "stderr": subprocess.PIPE, "stdin": subprocess.DEVNULL, "text": True} | options
        return subprocess.run([*enter, *command], check=False, **options)

    def run(
        self, *command: str, mounts: dict[str, pathlib.Path] | None = None, read_only: bool = False, user: int | None = None, **options
    ) -> subprocess.CompletedProcess:
        """Starts a container, as `docker run --network=none IMAGE COMMAND` would.

        Args:
            command: what follows the image's name.
            mounts: path in the container → folder outside, writable.
            read_only: whether the container's root is (a tmpfs is at /tmp then).
            user: uid to run as, where the test may choose one; the image's user by default.
            options: subprocess.run's.
        """
        config = json.loads(json.dumps(self.config))
        process = config["process"]
        process["args"] = [*self.entrypoint, *command]
        process["terminal"] = False
        config["root"]["readonly"] = read_only
        if read_only:
            config["mounts"].append({"destination": "/tmp", "type": "tmpfs", "source": "tmpfs", "options": ["mode=1777"]})
        for inside, outside in (mounts or {}).items():
            config["mounts"].append({"destination": inside, "type": "bind", "source": str(outside), "options": ["rbind", "rw"]})
        if self.rootless:
            process["user"] = {"uid": 0, "gid": 0}
        elif user is not None:
            process["user"] = {"uid": user, "gid": user}
        (self.folder / "bundle/config.json").write_text(json.dumps(config))
        state = ["--root", str(self.folder / "state"), "--rootless", "true" if self.rootless else "false"]
        return self.tool("/usr/sbin/runc.unwrapped", *state, "run", "--bundle", str(self.folder / "bundle"), f"test-{uuid.uuid4().hex}", **options)

    @property
    def entrypoint(self) -> list[str]:
        return self.image_config["Entrypoint"]

    @property
    def image_config(self) -> dict:
        """`config` of the image's configuration (image-spec, config.md)."""
        manifest = json.loads((IMAGE / "index.json").read_text())["manifests"][0]
        for key in ("manifest", "config"):
            blob = json.loads((IMAGE / "blobs" / manifest["digest"].replace(":", "/")).read_text())
            manifest = blob.get("config", {})
        return manifest


class ContainerCase(unittest.TestCase):
    """Tests of one image, unpacked once."""

    @classmethod
    def setUpClass(cls):
        folder = tempfile.TemporaryDirectory(prefix="container-", dir=os.environ["TEST_TMPDIR"])
        cls.addClassCleanup(folder.cleanup)
        cls.bundle = Bundle(pathlib.Path(folder.name).resolve())
        started = cls.bundle.run("true")
        if started.returncode:
            raise AssertionError(f"runc: {started.stderr}\n{HOW_TO_EXCLUDE}")

    def setUp(self):
        self.folder = pathlib.Path(tempfile.mkdtemp(dir=self.bundle.folder))
        self.folder.chmod(0o777)

    def run_in_container(self, *command: str, code: int = 0, **options) -> str:
        ran = self.bundle.run(*command, **options)
        self.assertEqual(ran.returncode, code, f"{command}\n{ran.stdout}\n{ran.stderr}")
        return ran.stdout + (ran.stderr or "")


class ContainerTest(ContainerCase):
    def test_its_own_tests_pass(self):
        report = self.run_in_container("pytest", "-q", os.environ["TESTS_FOLDER"], "--junit-xml=/workspace/report.xml", "--color=no", mounts={"/workspace": self.folder})
        sys.stderr.write(report)
        text = (self.folder / "report.xml").read_text()
        self.assertRegex(text, 'errors="0" failures="0" skipped="0" tests="[1-9]')
        for test in TESTS:
            if pathlib.Path(test).name.startswith("test_"):
                self.assertIn(pathlib.Path(test).stem, text, "a test file of this repository did not run in the image")

    def test_smoke_finds_everything_working(self):
        report = self.run_in_container("smoke")
        self.assertIn("smoke: everything works", report)
        self.assertIn("equals NumPy's", report)
        self.assertIn("no NVIDIA driver on this machine" if HAS_CUDA else "cuda: none; this image does not carry it", report)
        self.assertEqual("mlc-llm answers" in report, any(wheel.name.startswith("mlc_llm-") for wheel in WHEELS), report)

    def test_smoke_needs_no_folder_of_its_own(self):
        """For any user, whom the image has never heard of, and on a read-only root, as images/README.md says."""
        for options in ({"user": 4711}, {"read_only": True}, {"user": 4711, "read_only": True}):
            with self.subTest(options):
                self.assertIn("smoke: everything works", self.run_in_container("smoke", **options))

    def test_build_leaves_the_wheels_that_the_image_was_made_of(self):
        self.run_in_container("build", mounts={"/src/mlc-llm/python/dist": self.folder})
        expected = {wheel.name: hashlib.sha256(wheel.read_bytes()).hexdigest() for wheel in WHEELS}
        found = {file.name: hashlib.sha256(file.read_bytes()).hexdigest() for file in self.folder.iterdir()}
        self.assertEqual(found, expected)
        self.assertEqual(len(found), len(WHEELS))

    def test_build_says_why_it_cannot_write(self):
        message = self.run_in_container("build", "--output=/usr/share/wheels", code=1, read_only=True)
        self.assertIn(f"cannot write to /usr/share/wheels as uid {self.bundle.uid}", message)
        self.assertIn("--output", message)

    def test_help_names_the_commands(self):
        for word in ("smoke", "build", "pytest /tests", "/workspace"):
            self.assertIn(word, self.run_in_container("--help"))

    def test_any_other_command_runs_as_given_and_its_exit_code_is_the_containers(self):
        self.assertEqual(self.run_in_container("sh", "-c", "echo $0 \"$@\"; exit 7", "one", "two three", code=7), "one two three\n")
        self.assertIn("entrypoint: nosuch: no such command", self.run_in_container("nosuch", code=127))

    def test_without_a_command_there_is_a_shell_in_the_workspace_for_an_ordinary_user(self):
        script = "pwd; id -u; id -un; echo $HOME; type python3 awk tar\n"
        with tempfile.TemporaryFile("w+") as stdin:
            stdin.write(script)
            stdin.seek(0)
            lines = self.run_in_container(stdin=stdin).splitlines()
        self.assertEqual(lines[:4], ["/workspace", str(self.bundle.uid), "root" if self.bundle.rootless else "mlc", "/home/mlc"])
        self.assertEqual(len(lines), 7, lines)

    def test_what_is_mounted_at_the_workspace_is_seen(self):
        (self.folder / "model.bin").write_bytes(b"weights")
        self.assertEqual(self.run_in_container("cat", "model.bin", mounts={"/workspace": self.folder}), "weights")

    def test_tvm_works_on_a_read_only_root(self):
        program = "import tvm; print(tvm.runtime.tensor([1.0, 2.0]).numpy().sum())"
        self.assertEqual(self.run_in_container("python", "-c", program, read_only=True), "3.0\n")
        self.run_in_container("touch", "/home/mlc/x", read_only=True, code=1)

    def test_the_gpu_half_says_what_is_missing(self):
        said = self.run_in_container("python3", "-m", "tvm_cuda", code=1)
        if HAS_CUDA:
            self.assertIn("libcuda.so.1 is not found; in a container, start it with --gpus all", said)
        else:
            self.assertIn("No module named tvm_cuda", said)

    if HAS_CUDA:

        def test_everything_loads_where_the_host_mounts_a_driver(self):
            # As NVIDIA's container runtime mounts it; this one is an imitation without a GPU.
            shutil.copy(os.environ["DRIVER"], self.folder / "libcuda.so.1")
            said = self.run_in_container("python3", "-m", "tvm_cuda", code=1, mounts={"/usr/local/nvidia/lib64": self.folder})
            loaded = [line.split("  ")[0] for line in said.splitlines() if line.endswith(" loaded")]
            self.assertEqual(loaded, ["driver", "device runtime", "cublas", "curand", "nccl"], said)
            self.assertIn("cudnn is not loaded: libcudnn.so.9 is not found: pip install nvidia-cudnn-cu13", said)
            self.assertIn("no GPU: the driver shows none", said)

    def test_every_library_finds_what_it_needs(self):
        listing = self.run_in_container("sh", "-c", "find /usr -name '*.so*' -type f -exec ldd {} + 2>/dev/null; true")
        self.assertIn("libtvm_compiler.so:", listing)
        missing = {line.split()[0] for line in listing.splitlines() if line.endswith("=> not found")}
        self.assertLessEqual(missing, set(UNMET))


if __name__ == "__main__":
    unittest.main()
