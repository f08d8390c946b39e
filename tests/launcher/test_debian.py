"""Promises of fetch/debian/archive.py: versions, dependencies, signed indexes, .deb files, mirrors."""

import itertools
import os
import shutil
import tempfile
import unittest
from pathlib import Path
from unittest import mock

from fake_machine import TESTDATA, Server, deb

from fetch import errors
from fetch.debian import archive as debian


def stanza(name, version="1", **fields):
    lines = {"Package": name, "Version": version, "Architecture": "amd64", "Filename": f"pool/{name}.deb", "Size": "1", "SHA256": "0" * 64}
    return "\n".join(f"{key.replace('_', '-')}: {value}" for key, value in {**lines, **fields}.items()) + "\n"


def index(*stanzas, suite="forky"):
    return debian.Index("\n".join(stanzas), suite)


def names(packages):
    return [package.name for package in packages]


class VersionTest(unittest.TestCase):
    def test_orders_as_policy_says(self):
        ordered = ["1.0~~", "1.0~~a", "1.0~", "1.0", "1.0-1", "1.0-1+b1", "1.0a", "1.0+", "1.2", "1.10", "2:0.1", "10:0"]
        for low, high in itertools.combinations(ordered, 2):
            self.assertLess(debian.version_key(low), debian.version_key(high), f"{low} < {high}")
        self.assertEqual(debian.version_key("1.0-0"), debian.version_key("0:1.0"))


class ResolveTest(unittest.TestCase):
    def test_follows_depends_and_pre_depends_once(self):
        packages = index(stanza("a", Depends="b, c (>= 1)"), stanza("b", Pre_Depends="c"), stanza("c", Depends="a"), stanza("d"))
        self.assertEqual(names(debian.resolve(packages, ["a"])), ["a", "b", "c"])

    def test_takes_the_first_alternative_that_exists_unless_another_is_chosen(self):
        packages = index(stanza("a", Depends="none | b | c"), stanza("b"), stanza("c"))
        self.assertEqual(names(debian.resolve(packages, ["a"])), ["a", "b"])
        self.assertEqual(names(debian.resolve(packages, ["c", "a"])), ["a", "c"])

    def test_meets_a_virtual_package_by_a_provider(self):
        packages = index(stanza("a", Depends="mail"), stanza("exim", Provides="mail"), stanza("postfix", Provides="other, mail (= 2)"))
        self.assertEqual(names(debian.resolve(packages, ["a"])), ["a", "exim"])
        self.assertEqual(names(debian.resolve(packages, ["postfix", "a"])), ["a", "postfix"])

    def test_leaves_out_what_is_excluded(self):
        packages = index(stanza("a", Depends="big, b"), stanza("big", Depends="bigger"), stanza("bigger"), stanza("b"))
        self.assertEqual(names(debian.resolve(packages, ["a"], exclude=["big"])), ["a", "b"])

    def test_heeds_version_constraints(self):
        packages = index(stanza("a", Depends="b (>= 2) | c"), stanza("b", "1.9"), stanza("c"))
        self.assertEqual(names(debian.resolve(packages, ["a"])), ["a", "c"])

    def test_an_unmet_dependency_is_an_error_that_names_both(self):
        packages = index(stanza("a", "3-1", Depends="b (>= 2)"), stanza("b", "1"))
        with self.assertRaisesRegex(debian.DebianError, r"a 3-1 depends on 'b \(>= 2\)'.*forky"):
            debian.resolve(packages, ["a"])
        with self.assertRaisesRegex(debian.DebianError, "no package 'zzz' in forky"):
            debian.resolve(packages, ["zzz"])

    def test_merged_indexes_give_the_newer_version(self):
        merged = index(stanza("a", "1-1"), suite="bookworm").merge(index(stanza("a", "1-1+deb12u1"), suite="bookworm-security"))
        self.assertEqual((merged["a"].version, merged["a"].suite), ("1-1+deb12u1", "bookworm-security"))


class SignedIndexTest(unittest.TestCase):
    """Against the real gpgv and real signatures."""

    def setUp(self):
        self.server = Server()
        self.addCleanup(self.server.close)
        self.signed = (TESTDATA / "InRelease").read_bytes()
        self.base = "/debian/dists/forky"
        self.server.files[f"{self.base}/InRelease"] = self.signed
        self.server.files[f"{self.base}/main/binary-amd64/Packages.xz"] = (TESTDATA / "Packages.xz").read_bytes()
        self.use(MLC_DEBIAN_MIRROR=f"{self.server.url}/debian", MLC_DEBIAN_KEYRING=str(TESTDATA / "keyring.gpg"))

    def use(self, **environment):
        patch = mock.patch.dict(os.environ, environment)
        patch.start()
        self.addCleanup(patch.stop)

    def test_a_good_signature_is_taken(self):
        package = debian.fetch_index("forky")["hello"]
        self.assertEqual((package.version, package.suite, package.archive), ("1.0-1", "forky", "debian"))
        self.assertEqual(package.urls(), [f"{self.server.url}/debian/pool/main/h/hello/hello_1.0-1_amd64.deb"])

    def test_a_changed_index_is_refused(self):
        self.server.files[f"{self.base}/InRelease"] = self.signed.replace(b"71e8", b"0000")
        with self.assertRaisesRegex(debian.SignatureError, "InRelease: bad signature.*keyring.gpg"):
            debian.fetch_index("forky")

    def test_another_signer_is_refused(self):
        self.use(MLC_DEBIAN_KEYRING=str(TESTDATA / "other_keyring.gpg"))
        with self.assertRaisesRegex(debian.SignatureError, "bad signature.*other_keyring.gpg"):
            debian.fetch_index("forky")

    def test_an_unsigned_index_is_refused(self):
        self.server.files[f"{self.base}/InRelease"] = b"Suite: testing\n"
        with self.assertRaises(debian.SignatureError):
            debian.fetch_index("forky")

    def test_text_outside_of_the_signature_is_not_read(self):
        self.assertIn("Codename: forky", debian.verified_text(self.signed, "InRelease"))
        try:
            text = debian.verified_text(b"Evil: yes\n\n" + self.signed + b"\nEvil: yes\n", "InRelease")
        except debian.SignatureError:
            return
        self.assertNotIn("Evil", text)

    def test_a_package_list_that_was_not_signed_is_refused(self):
        self.server.files[f"{self.base}/main/binary-amd64/Packages.xz"] = b"other"
        with self.assertRaisesRegex(debian.DebianError, "expected sha256 71e8ba1b.*found"):
            debian.fetch_index("forky")

    def test_a_missing_suite_names_the_mirror_and_the_variable(self):
        with self.assertRaisesRegex(debian.DebianError, "(?s)suite 'sid'.*HTTP 404.*MLC_DEBIAN_MIRROR"):
            debian.fetch_index("sid")

    def test_no_keyring_says_which_package_has_it(self):
        self.use(MLC_DEBIAN_KEYRING="")
        with mock.patch("os.path.isfile", return_value=False), self.assertRaisesRegex(debian.DebianError, "debian-archive-keyring"):
            debian.verified_text(self.signed, "InRelease")

    def test_the_second_mirror_answers_for_the_first(self):
        self.use(MLC_DEBIAN_MIRROR=f"{self.server.url}/nothing {self.server.url}/debian/")
        self.assertIn("hello", debian.fetch_index("forky"))


class DebTest(unittest.TestCase):
    def write(self, data):
        folder = tempfile.mkdtemp(dir=os.environ.get("TEST_TMPDIR"))
        self.addCleanup(shutil.rmtree, folder)
        path = Path(folder, "x.deb")
        path.write_bytes(data)
        return path

    def test_reads_control_and_files(self):
        package = debian.Deb(self.write(deb({"usr/bin/a": ("hello", 0o755)}, "Package: a\nDescription: one\n two\n")))
        self.assertEqual(package.control, {"Package": "a", "Description": "one\ntwo"})
        with package.data() as tar:
            self.assertEqual([(member.name, member.mode) for member in tar], [("./usr/bin/a", 0o755)])

    def test_another_compression_is_an_error_that_names_it(self):
        path = self.write(deb({}, data_member="data.tar.zst"))
        with self.assertRaisesRegex(debian.DebianError, r"x\.deb: data\.tar\.zst"):
            debian.Deb(path).data()

    def test_damage_is_an_error(self):
        whole = deb({"a": ("b", 0o644)})
        for data in (b"<html>", whole[:70] + b"rubbish" * 20):
            with self.assertRaisesRegex(debian.DebianError, r"x\.deb"):
                debian.Deb(self.write(data)).data()


class MirrorsTest(unittest.TestCase):
    def setUp(self):
        debian._apt_mirrors.cache_clear()
        self.addCleanup(debian._apt_mirrors.cache_clear)
        self.folder = tempfile.mkdtemp(dir=os.environ.get("TEST_TMPDIR"))
        self.addCleanup(shutil.rmtree, self.folder)

    def apt(self, text):
        # As real apt does before the first update, this one lists nothing unless asked to do without release files.
        script = Path(self.folder, "apt-get")
        script.write_text(f"#!/bin/sh\ncase \"$*\" in *--no-release-info*) cat <<'EOF'\n{text}\nEOF\nesac\n")
        script.chmod(0o755)
        return mock.patch.dict(os.environ, {"PATH": f"{self.folder}:/usr/bin:/bin", "MLC_DEBIAN_MIRROR": "", "MLC_DEBIAN_SECURITY_MIRROR": ""})

    LISTING = (
        "http://a.test/debian/ bookworm Packages\nhttp://a.test/debian/ bookworm-updates Packages\nhttp://a.test/debian/ bookworm DEP-11\n"
        "http://a.test/debian-security/ bookworm-security Packages\nhttp://vendor.test/apt/ nodistro Packages"
    )

    def test_come_from_apt(self):
        with self.apt(self.LISTING):
            self.assertEqual(debian.mirrors(), {"debian": ["http://a.test/debian"], "debian-security": ["http://a.test/debian-security"]})

    def test_the_environment_decides(self):
        with self.apt(self.LISTING), mock.patch.dict(os.environ, {"MLC_DEBIAN_MIRROR": "http://b.test/d/ http://c.test/d"}):
            self.assertEqual(debian.mirrors()["debian"], ["http://b.test/d", "http://c.test/d"])
            self.assertEqual(debian.mirrors()["debian-security"], ["http://a.test/debian-security"])

    def test_none_is_an_error_that_says_what_to_set(self):
        with self.apt(""), self.assertRaisesRegex(errors.UserError, "Set MLC_DEBIAN_SECURITY_MIRROR"):
            debian.mirror_urls("debian-security")


if __name__ == "__main__":
    unittest.main()
