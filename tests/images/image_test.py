"""What the images hold: configuration, layers, users, packages and files."""

from __future__ import annotations

import functools
import json
import os
import pathlib
import posixpath
import re
import unittest

from oci.layer import SOURCE_DATE_EPOCH
from oci.layout import Image

SITE_PACKAGES = "usr/local/lib/python3.11/dist-packages"

PASSWD = """\
root:*:0:0:root:/root:/bin/bash
mlc:*:1000:1000:default user of this image:/home/mlc:/bin/bash
nobody:*:65534:65534:nobody:/nonexistent:/usr/sbin/nologin
"""

GROUPS = {"root": 0, "tty": 5, "mail": 8, "shadow": 42, "utmp": 43, "video": 44, "staff": 50, "mlc": 1000, "nogroup": 65534}

BUILD_TOOLS = ("as", "c++", "cc", "cmake", "g++", "gcc", "git", "ld", "make", "ninja", "python3.11-config")


@functools.cache
def image(name: str) -> Image:
    return Image(pathlib.Path(os.environ[name.upper()]))


@functools.cache
def lock() -> dict:
    return json.loads(pathlib.Path(os.environ["DEBIAN_LOCK"]).read_text())


class ImagePromises:
    """What holds of every image."""

    name: str
    package_sets: tuple[str, ...]
    licenses = "Apache-2.0"
    # Variables beside those of tvm_runtime, which come first.
    environment: tuple[str, ...] = ()

    # A path that only one layer can have, for each layer from the lowest.
    layers: tuple[str, ...] = (
        "usr/lib/os-release",
        "usr/bin/python3.11",
        f"{SITE_PACKAGES}/numpy/__init__.py",
        f"{SITE_PACKAGES}/pytest/__init__.py",
        f"{SITE_PACKAGES}/tvm/lib/libtvm_compiler.so",
        f"{SITE_PACKAGES}/tvm/lib/libtvm_runtime.so",
        "usr/local/bin/entrypoint",
    )

    @property
    def image(self) -> Image:
        return image(self.name)

    def test_configuration(self):
        config = self.image.config
        self.assertEqual((config["os"], config["architecture"], config["created"]), ("linux", "amd64", "2000-01-01T00:00:00Z"))
        labels = config["config"].pop("Labels")
        self.assertEqual(
            config["config"],
            {
                "Entrypoint": ["/usr/local/bin/entrypoint"],
                "Env": [
                    "LANG=C.UTF-8",
                    "NVIDIA_DRIVER_CAPABILITIES=compute,utility",
                    "NVIDIA_VISIBLE_DEVICES=all",
                    "PATH=/usr/local/bin:/usr/bin:/usr/sbin",
                    "PYTHONPYCACHEPREFIX=/home/mlc/.cache/python",
                    *self.environment,
                ],
                "User": "mlc",
                "WorkingDir": "/workspace",
            },
        )
        prefix = "org.opencontainers.image."
        self.assertEqual(set(labels), {prefix + key for key in ("description", "licenses", "revision", "source", "title", "version")})
        self.assertEqual(labels[prefix + "title"], self.name)
        self.assertEqual(labels[prefix + "licenses"], self.licenses)
        # A commit without new content must not change the digest: only a release build names it.
        self.assertRegex(labels[prefix + "revision"], f"^{os.environ['REVISION']}$")
        self.assertRegex(labels[prefix + "version"], r"^\d+\.\d+\.\d+$")
        self.assertRegex(labels[prefix + "source"], "^https://")

    def test_layers_are_in_the_order_of_how_often_they_change(self):
        self.assertEqual([[n for n, layer in enumerate(self.image.layers) if path in layer] for path in self.layers], [[n] for n in range(len(self.layers))])
        self.assertEqual(len(self.image.layers), len(self.layers))

    def test_no_layer_overwrites_another(self):
        # Folders are in every layer that has something in them, and must be the same folder in each.
        seen: dict[str, tuple] = {}
        for number, layer in enumerate(self.image.layers):
            for path, file in layer.items():
                facts = (file.entry.type, file.entry.mode, file.entry.uid, file.entry.gid)
                before = seen.setdefault(path, (number, facts, file.entry.isdir()))
                if before[0] != number:
                    self.assertTrue(file.entry.isdir() and before[1] == facts, f"/{path} of layer {number} differs from layer {before[0]}'s")

    def test_users_and_groups(self):
        self.assertEqual(self.image.text("etc/passwd"), PASSWD)
        self.assertEqual(self.image.text("etc/group"), "".join(f"{name}:*:{gid}:\n" for name, gid in GROUPS.items()))

    def test_every_owner_has_a_name(self):
        owners = {(file.entry.uid, file.entry.gid) for file in self.image.files.values()}
        self.assertLessEqual({uid for uid, _ in owners}, {0, 1000})
        self.assertLessEqual({gid for _, gid in owners}, set(GROUPS.values()))

    def test_the_user_owns_only_its_places(self):
        mine = {path for path, file in self.image.files.items() if file.entry.uid == 1000}
        self.assertEqual(mine, {"home/mlc", "home/mlc/.cache", "src/mlc-llm/python/dist", "workspace"})

    def test_nobody_gains_rights(self):
        files = self.image.files.items()
        self.assertEqual([path for path, file in files if file.entry.mode & 0o6000], [], "set-user-id or set-group-id")
        writable = {path for path, file in files if file.entry.mode & 0o002 and not file.entry.issym()}
        self.assertEqual({(path, oct(self.image.files[path].entry.mode)) for path in writable}, {(path, "0o1777") for path in ("tmp", "var/lock", "var/tmp")})
        special = [path for path, file in files if not (file.entry.isreg() or file.entry.isdir() or file.entry.issym() or file.entry.islnk())]
        self.assertEqual(special, [])

    def test_every_entry_has_the_fixed_time_and_no_builders_name(self):
        facts = {(file.entry.mtime, file.entry.uname, file.entry.gname) for file in self.image.files.values()}
        self.assertEqual(facts, {(SOURCE_DATE_EPOCH, "", "")})

    def test_packages_are_those_of_the_lock(self):
        expected = {key.split("/")[1]: lock()["packages"][key]["version"] for name in self.package_sets for key in lock()["sets"][name]}
        status = {path for path in self.image.files if posixpath.dirname(path) == "var/lib/dpkg/status.d" and not path.endswith(".md5sums")}
        found = {}
        for path in status:
            fields = dict(re.findall(r"^(\S+): (.*)$", self.image.text(path), re.MULTILINE))
            self.assertEqual(fields["Status"], "install ok installed")
            found[fields["Package"]] = fields["Version"]
        self.assertEqual(found, expected)

    def test_every_package_brings_its_copyright(self):
        packages = [key.split("/")[1] for name in self.package_sets for key in lock()["sets"][name]]
        paths = {package: self.image.resolve(f"usr/share/doc/{package}/copyright") for package in packages}
        self.assertEqual([package for package, path in paths.items() if not path], [])
        self.assertTrue(all(self.image.files[path].data for path in paths.values()))

    def test_no_link_leads_to_nothing(self):
        links = [path for path, file in self.image.files.items() if file.entry.issym()]
        self.assertGreater(len(links), 100)
        self.assertEqual([path for path in links if self.image.resolve(path) is None], [])

    def test_nothing_of_the_build_is_left(self):
        patterns = {
            "bytecode": r"\.pyc$|/__pycache__(/|$)",
            "caches": r"^(root|home/mlc)/\.cache/.|^var/cache/.*[^/]\.deb$|(^|/)\.pytest_cache(/|$)",
            "where a wheel was": r"\.dist-info/direct_url\.json$",
            "manual pages and translations": r"^usr/share/(man|info|locale)/.",
        }
        for what, pattern in patterns.items():
            with self.subTest(what):
                self.assertEqual([path for path in self.image.files if re.search(pattern, path)], [])
        for needle in (b"/execroot/", b"bazel-out/", b"/sandbox/linux-sandbox"):
            with self.subTest(needle):
                self.assertEqual([path for path, file in self.image.files.items() if needle in file.data], [])

    def test_installed_commands_start_the_images_python(self):
        scripts = {path: file.data.split(b"\n", 1)[0] for path, file in self.image.files.items() if path.startswith("usr/local/bin/")}
        scripts = {path: line for path, line in scripts.items() if line}
        self.assertLessEqual({"usr/local/bin/" + name for name in ("build", "entrypoint", "pytest", "smoke")}, set(scripts))
        for path, line in scripts.items():
            self.assertRegex(line, rb"^#!/usr/bin/python3( -IS)?$", path)
            self.assertEqual(self.image.files[path].entry.mode, 0o755, path)

    def test_certificates_are_bundled_where_openssl_looks(self):
        bundle = self.image.resolve("usr/lib/ssl/cert.pem")
        self.assertEqual(bundle, "etc/ssl/certs/ca-certificates.crt")
        sources = [path for path in self.image.files if path.startswith("usr/share/ca-certificates/mozilla/") and path.endswith(".crt")]
        self.assertGreater(len(sources), 100)
        self.assertEqual(self.image.text(bundle).count("BEGIN CERTIFICATE"), len(sources))

    def build_tools(self) -> list[str]:
        return [name for name in BUILD_TOOLS if self.image.resolve(f"usr/bin/{name}")]


class TvmRuntimeTest(ImagePromises, unittest.TestCase):
    name = "tvm_runtime"
    package_sets = ("image_base", "image_python")

    def test_no_build_tools(self):
        self.assertEqual(self.build_tools(), [])
        self.assertEqual([path for path in self.image.files if re.search(r"/cc1(plus)?$|^usr/include/(?!python)", path)], [])

    def test_nothing_of_cuda(self):
        self.assertEqual([path for path in self.image.files if re.search(r"nvidia|tvm_cuda|tvm_runtime_cuda|libcu(da|blas|rand|dnn)", path, re.IGNORECASE)], [])


class TvmRuntimeDevTest(ImagePromises, unittest.TestCase):
    name = "tvm_runtime_dev"
    package_sets = ("image_base", "image_python", "image_dev")
    layers = (*ImagePromises.layers, "usr/bin/g++", "tests/dev/test_export.py")

    def test_build_tools(self):
        self.assertEqual(self.build_tools(), list(BUILD_TOOLS))

    def test_it_adds_to_tvm_runtime(self):
        base = image("tvm_runtime").layer_digests
        self.assertEqual(self.image.layer_digests[: len(base)], base)


if __name__ == "__main__":
    unittest.main()
