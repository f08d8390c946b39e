"""Labels name the revision only where the build is stamped, so that a commit without new content changes no digest."""

from __future__ import annotations

import unittest

from images.private import make_labels

_REVISION = "org.opencontainers.image.revision"


class MakeLabelsTest(unittest.TestCase):
    def test_unstamped(self):
        self.assertEqual(make_labels.labels(["z=1", "a=x y"], None), f"a=x y\n{_REVISION}=unstamped\nz=1\n")

    def test_stamped(self):
        self.assertEqual(make_labels.labels([], "BUILD_USER me\nSTABLE_REVISION 0123abc\n"), f"{_REVISION}=0123abc\n")

    def test_a_stamp_without_revision_is_an_error(self):
        for status in ("", "BUILD_USER me\n", "STABLE_REVISION \n"):
            with self.subTest(status), self.assertRaisesRegex(ValueError, "no STABLE_REVISION: build with --config=release"):
                make_labels.labels([], status)


if __name__ == "__main__":
    unittest.main()
