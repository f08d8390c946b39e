"""Describes an image: layers, packages, largest files, and the difference from another image. In the terminal, or with
--html on one self-contained page, which also shows folders.

    tools/bazel run //images:report                                                     # the first image
    tools/bazel run //images:report -- --html                                           # on a page, NAME.html
    tools/bazel run //images:report -- --image tvm_runtime_dev --against tvm_runtime    # two images of this build
    tools/bazel run //images:report -- --against registry.example.org/tvm_runtime:TAG   # this build and a published tag
"""

from __future__ import annotations

import argparse
import pathlib
import re
import sys
import tempfile

from fetch import arguments, errors, programs
from oci import image_facts, reference
from oci.image_facts import ImageError, ImageFacts, LayerContent
from oci.report import pages, tables, treemap

# Rows of a table that are visible at first, and the most differing files that a page lists.
_SHOWN = 12
_LISTED = 200

_TEMPLATE = pathlib.Path(__file__).with_name("report.html.jinja")


def page(image: ImageFacts, other: ImageFacts | None = None) -> str:
    """The page about an image, with its difference from `other` if given."""
    return pages.render(
        _TEMPLATE,
        image=image,
        other=other,
        difference=image_facts.compare(other, image) if other else None,
        duplicates=image.duplicates(),
        # One for screens, one for phones.
        drawings=[
            (treemap.tiles(image.files, *size), *size, kind)
            for size, kind in (((1160, 580), "wide"), ((380, 620), "tall"))
        ],
        shown=_SHOWN,
        listed=_LISTED,
    )


def pull(name: str, image: ImageFacts, skopeo: pathlib.Path, folder: pathlib.Path) -> None:
    """Copies an image from a registry into an OCI layout; of several platforms it takes that of `image`.

    Raises:
        ImageError: the reference is malformed, or the pull fails.
    """
    # skopeo takes a tag or a digest, not both.
    try:
        host = reference.parse(name).host
    except reference.ReferenceError:
        raise ImageError(
            f"--against {name}: expected the name of an image of this build, a folder with an OCI layout, "
            "or REGISTRY/NAME:TAG or REGISTRY/NAME@sha256:DIGEST; found none of these"
        ) from None
    # An artifact has no platform.
    platform = [
        f"--override-{flag}={image.config[key]}"
        for flag, key in (("os", "os"), ("arch", "architecture"))
        if key in image.config
    ]
    # A registry on this machine speaks plain http.
    plain = ["--src-tls-verify=false"] if reference.on_this_machine(host) else []
    # The image is only inspected, so it needs no signature.
    command = [
        str(skopeo.absolute()),
        "--insecure-policy",
        *platform,
        "copy",
        "--quiet",
        *plain,
        f"docker://{name}",
        f"oci:{folder}:against",
    ]
    try:
        programs.run(command, seconds=programs.SECONDS_OF_TRANSFER)
    except programs.ProgramError as error:
        lines = error.said.strip().splitlines() or [f"exit status {error.status}"]
        message = re.sub(r'^time=".*?" level=\w+ msg="(.*)"$', r"\1", lines[-1]).replace('\\"', '"')
        raise ImageError(f"--against {name}: skopeo could not pull it: {message}") from None


def _facts(options: argparse.Namespace) -> tuple[ImageFacts, ImageFacts | None]:
    images = {name: image for of, folder in options.layout for name, image in image_facts.named(of, folder).items()}
    name = options.image or next(iter(images))
    if name not in images:
        raise ImageError(
            f"--image {name}: expected an image of this build ({', '.join(images)}), found none of that name"
        )
    known: dict[str, LayerContent] = {}
    image = image_facts.read(name, images[name], known)

    def only(name: str, folder: pathlib.Path) -> ImageFacts:
        """The image of another layout; of an index, the one for the same processor as the image to show."""
        others = list(image_facts.named(name, folder).values())
        same = [each for each in others if each.config.get("architecture") == image.config.get("architecture")]
        return image_facts.read(name, (same or others)[0], known)

    against = options.against
    if not against:
        return image, None
    if against in images:
        return image, image_facts.read(against, images[against], known)
    folder = arguments.user_path(against)
    if folder.is_dir():
        return image, only(against, folder)
    with tempfile.TemporaryDirectory(prefix="report-") as temporary:
        layout = pathlib.Path(temporary, "layout")
        pull(against, image, options.skopeo, layout)
        return image, only(against, layout)


def main() -> int:
    parser = arguments.Parser("//images:report", __doc__)
    parser.add_argument("--layout", type=arguments.named_path, action="append", required=True, help=argparse.SUPPRESS)
    # A build action passes none, so it cannot compare with an image in a registry.
    parser.add_argument("--skopeo", type=pathlib.Path, default=pathlib.Path("skopeo"), help=argparse.SUPPRESS)
    parser.add_argument("--image", help="the image to show (default: the first)")
    parser.add_argument(
        "--against",
        metavar="OTHER",
        help=(
            "what to compare it with: another image of this build, a folder with an OCI layout, REGISTRY/NAME:TAG or"
            " REGISTRY/NAME@DIGEST"
        ),
    )
    parser.add_argument(
        "--html", nargs="?", const="", metavar="FILE", help="write the page instead of tables (default: NAME.html)"
    )
    options = parser.parse_args()
    try:
        image, other = _facts(options)
        if options.html is None:
            sys.stdout.reconfigure(errors="backslashreplace")  # type: ignore[union-attr]  # it is a TextIOWrapper
            tables.show(image, other)
            sys.stdout.flush()
            return 0
        output = arguments.user_path(options.html or f"{image.name}.html").absolute()
        output.write_text(page(image, other), encoding="utf-8")
    except ImageError as error:
        errors.tell("report", error)
        return 1
    except OSError as error:
        place = f"{error.filename}: {error.strerror}; name another file with --html"
        print(f"report: cannot write {place if error.filename else error.strerror}", file=sys.stderr)
        return 1
    print(output)
    return 0


if __name__ == "__main__":
    sys.exit(main())
