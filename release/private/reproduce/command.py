"""Builds everything that is published a second time, elsewhere, and compares the bytes; records digests; verifies
published artifacts.

tools/bazel run //release:reproduce                                     # compare two builds of the same sources
tools/bazel run --config=release //release:reproduce -- --record        # and record their digests, at a release's tag
tools/bazel run --config=release //release:reproduce -- --verify FILE…  # was this download built from the sources?

The first build is this workspace's. The second shares only sources and downloads with it: its user, group, host name,
umask, locale, time zone, clock, number of jobs, workspace and output base differ, and it sees no toolchain of this
machine. If something cannot be varied here, the command fails unless --without names it.
"""

from __future__ import annotations

import argparse
import dataclasses
import json
import os
import pathlib
import shutil
import subprocess
import sys
import tempfile
import time
from collections.abc import Collection

from fetch import arguments, errors, programs
from oci import layout as oci_layout
from oci import reference
from release.private import publish, stamp
from release.private.reproduce import compare, record, second_build

_TARGET = "//release:reproduce"
_FACTS = "release/dist/release.json"

Thing = record.Thing


@dataclasses.dataclass(frozen=True)
class Published:
    """An artifact to verify.

    Attributes:
        thing: its kind and name, as in the record.
        path: where it is.
        digest: its digest, as the record has digests.
        build: the build of the record that it is compared with.
        recorded: the digest that this build has for it, or None.
    """

    thing: Thing
    path: pathlib.Path
    digest: str
    build: str
    recorded: str | None


def _parser() -> argparse.ArgumentParser:
    parser = arguments.Parser(_TARGET, __doc__)
    for name in "workspace_file", "surroundings", "libfaketime", "diffoscope", "skopeo":
        parser.add_argument(f"--{name}", type=pathlib.Path, required=True, help=argparse.SUPPRESS)
    parser.add_argument("--version", required=True, help=argparse.SUPPRESS)
    parser.add_argument("--kind", required=True, help=argparse.SUPPRESS)
    parser.add_argument("--targets", nargs="+", required=True, help=argparse.SUPPRESS)
    parser.add_argument("--artifacts", nargs="+", required=True, help=argparse.SUPPRESS)
    # Shows that the comparison notices a change: the second build's copy of a source file gets one more line.
    parser.add_argument("--spoil", metavar="FILE", help=argparse.SUPPRESS)
    parser.add_argument(
        "--without",
        type=lambda text: text.split(","),
        default=[],
        metavar="VARIATION,…",
        help=f"what not to vary: {', '.join(second_build.NAMES[2:])}",
    )
    parser.add_argument(
        "--record", action="store_true", help="write the digests to release/digests.json if both builds are the same"
    )
    parser.add_argument(
        "--verify",
        nargs="+",
        metavar="FILE_OR_IMAGE",
        help=(
            "published artifacts: a wheel, a bill of materials, a folder of a release, an OCI layout, REGISTRY/NAME:TAG"
            " or REGISTRY/NAME@DIGEST, with IMAGE= before it if NAME does not end in the image's name"
        ),
    )
    parser.add_argument("--tag", help="the release that the verified artifacts belong to (default: this version's)")
    parser.add_argument("--html", type=arguments.user_path, help="page with the differences (default: reproduce.html)")
    parser.add_argument(
        "--place",
        type=arguments.user_path,
        help="folder for the second build, removed afterwards (default: in the user's cache)",
    )
    return parser


def _place(asked: pathlib.Path | None) -> pathlib.Path:
    """A new folder, outside /tmp, which may be in memory and which Bazel's sandbox replaces."""
    if test := os.environ.get("TEST_TMPDIR"):
        return pathlib.Path(tempfile.mkdtemp(prefix="reproduce-", dir=test))
    cache = os.environ.get("MLC_BAZEL_CACHE") or os.path.join(
        os.environ.get("XDG_CACHE_HOME") or os.path.expanduser("~/.cache"), "mlc-bazel"
    )
    folder = asked or pathlib.Path(cache)
    folder.mkdir(parents=True, exist_ok=True)
    return pathlib.Path(tempfile.mkdtemp(prefix="reproduce-", dir=folder)).resolve()


def _html(asked: pathlib.Path | None) -> pathlib.Path:
    if asked:
        return asked
    outputs = os.environ.get("TEST_UNDECLARED_OUTPUTS_DIR")
    return pathlib.Path(outputs, "reproduce.html") if outputs else arguments.user_path("reproduce.html")


class Command:
    """What the options ask for.

    Args:
        options: of the parser.
    """

    def __init__(self, options: argparse.Namespace) -> None:
        self.options = options
        self.workspace = options.workspace_file.resolve().parent
        self.first = {artifact: pathlib.Path(artifact) for artifact in options.artifacts}
        self.saw = json.loads(options.surroundings.read_text(encoding="utf-8"))
        self.revision = json.loads(pathlib.Path(_FACTS).read_text(encoding="utf-8"))["revision"]
        self.digests = self.workspace / "release/digests.json"
        self.html = _html(options.html)
        # Set by tools/bazel: the profile that it chose.
        self.build = os.environ.get("MLC_PROFILE", "upstream") + options.kind

    @property
    def stamped(self) -> bool:
        return self.revision != "unstamped"

    def images(self) -> dict[str, pathlib.Path]:
        """The published images of this build: name → layout, an index of one for each processor."""
        return {
            path.parent.name: path
            for name, path in self.first.items()
            if name.startswith("images/") and oci_layout.is_layout(path)
        }

    def _second(self, place: pathlib.Path, revision: str | None, without: Collection[str]) -> second_build.SecondBuild:
        return second_build.SecondBuild(
            self.workspace, place, self.saw, self.options.libfaketime.resolve(), without, revision
        )

    def compare(self, place: pathlib.Path) -> bool:
        """Builds everything again and compares; returns whether nothing differs and every variation had an effect."""
        options = self.options
        release = ["--config=release"] if self.stamped else []
        began = time.monotonic()
        with self._second(place, self.revision if self.stamped else None, options.without) as second:
            if options.spoil:
                with open(second.root / options.spoil, "a", encoding="utf-8") as file:
                    file.write("\n# one line more\n")
            print(f"building {len(options.targets)} targets again, from nothing, in {second.root}", flush=True)
            binaries = second.build(release, options.targets)
            took = time.monotonic() - began
            saw = json.loads((binaries / options.surroundings).read_text(encoding="utf-8"))
            saw["jobs"] = f"at most {second.concurrency()} of --jobs={second.jobs}"
            # The first build used as many jobs as there are processors, unless told otherwise.
            first_saw = self.saw | {"jobs": f"{os.cpu_count()} processors, Bazel's default"}
            count, different = compare.differences(
                self.first, {artifact: binaries / artifact for artifact in self.first}
            )
            lines, failed = second_build.table(first_saw, saw, options.without)
            if different:
                compare.tell(different, options.diffoscope, self.html)
            print("\n".join(["", *lines, ""]))
            print(
                f"{count} files of {len(self.first)} artifacts compared, {len(different)} differ; the second build took"
                f" {took:.0f} s"
            )
            if failed:
                print(
                    f"no effect: {', '.join(failed)}. The comparison proves nothing about it; to skip it: --without"
                    f" {','.join(failed)}"
                )
            return not different and not failed

    def record(self) -> None:
        tag = f"v{self.options.version}"
        record.write(
            self.digests,
            tag,
            self.build,
            record.of_build(pathlib.Path("release/dist"), self.images()),
            self.workspace,
            self.revision,
        )
        print(
            f"{self.digests}: {tag}, {self.build}. To commit it: git commit -m 'The digests of {tag}'"
            " release/digests.json"
        )

    # Verifying ----------------------------------------------------------------------------------------------------

    def verify(self, place: pathlib.Path) -> bool:
        """Compares published artifacts with the record and with a build of the same commit here; returns whether all
        agree.
        """
        options = self.options
        content = record.read(self.digests)
        tag = options.tag or f"v{options.version}"
        found: list[tuple[Thing, pathlib.Path]] = []
        for number, text in enumerate(options.verify):
            path = arguments.user_path(text)
            if path.exists():
                found += record.artifacts(path)
            else:
                found += self._pull(text, place / "pulled" / str(number))
        published, revisions, indexes = [], set(), self.images()
        for thing, path in found:
            digest = record_digest(path)
            build, revision, recorded = record.look_up(content, tag, self.build, thing, digest)
            if (
                path.is_dir()
                and "" in oci_layout.images(path)
                and "" not in oci_layout.images(indexes.get(thing[1], path))
            ):
                raise record.RecordError(
                    f"{path}: expected the index of the images for all processors, which is published, found that for"
                    f" one: verify REGISTRY/{thing[1]}:{options.tag or options.version}"
                )
            published.append(Published(thing, path, digest, build, recorded))
            revisions.add(revision)
        [revision] = revisions
        wanted = list(dict.fromkeys(each.thing for each in published))
        rebuilt = self._here(wanted) if revision == self.revision else None
        where = "this build" if rebuilt is not None else "a build of it here"
        if rebuilt is None:
            print(
                f"{tag} was built from commit {revision}, this build from {self.revision}: building that commit"
                " elsewhere",
                flush=True,
            )
            # Vary nothing: that commit's locks may name what has not been downloaded yet, and certificates would have
            # expired by the second build's clock.
            with self._second(place / "build", revision, second_build.NAMES[2:]) as second:
                return self._verdict(tag, published, self._build_at(second, wanted), where)
        return self._verdict(tag, published, rebuilt, where)

    def _here(self, wanted: list[Thing]) -> dict[Thing, pathlib.Path]:
        images = self.images()
        return {(kind, name): images.get(name) or pathlib.Path("release/dist", name) for kind, name in wanted}

    def _build_at(self, second: second_build.SecondBuild, wanted: list[Thing]) -> dict[Thing, pathlib.Path]:
        """Builds what is needed from another commit; labels and paths are the same in every release."""
        targets = {"images": "//images/{}:index", "sboms": "//release:{}", "wheels": "//wheels/..."}
        outputs = {"images": "images/{}/index", "sboms": "release/{}"}
        binaries = second.build(["--config=release"], sorted({targets[kind].format(name) for kind, name in wanted}))
        # Up to 0.1.0 a wheel was a file in this folder; now it is in a subfolder.
        wheels = {path.name: path for path in binaries.glob("wheels/**/*.whl")}
        return {
            (kind, name): (
                wheels.get(name, binaries / "wheels" / name)
                if kind == "wheels"
                else binaries / outputs[kind].format(name)
            )
            for kind, name in wanted
        }

    def _verdict(self, tag: str, published: list[Published], rebuilt: dict[Thing, pathlib.Path], where: str) -> bool:
        """Prints a line for each artifact and the differences; returns whether there are none.

        Args:
            tag: the release's tag.
            published: the artifacts.
            rebuilt: their paths in a build here.
            where: a description of that build.
        """
        good, different = True, []
        for each in published:
            name, here = each.thing[1], rebuilt[each.thing]
            made = record_digest(here) if here.exists() else None
            said = (
                "as recorded"
                if each.digest == each.recorded
                else f"NOT AS RECORDED: {each.recorded or 'release/digests.json has none of that name'}"
            )
            same = (
                "the same bytes in " + where
                if each.digest == made
                else f"OTHER BYTES in {where}: {made or 'it has no such artifact'}"
            )
            print(f"{name}: {each.digest}\n    {said} for {tag}, {each.build}\n    {same}")
            if each.digest != made and each.build != self.build:
                print(f"    this build is {self.build}: to compare, build with the options of {each.build}")
            good &= each.digest == each.recorded and each.digest == made
            if made and each.digest != made:
                different += compare.differences({name: each.path}, {name: here})[1]
        if different:
            print("first: published; second: built here")
            compare.tell(different, self.options.diffoscope, self.html)
        print(f"{len(published)} artifacts verified" if good else "not verified: see above")
        return good

    def _pull(self, text: str, layout: pathlib.Path) -> list[tuple[Thing, pathlib.Path]]:
        """Copies an image from a registry, unchanged. Its name is what the user asked for, not what the registry says.

        Args:
            text: REGISTRY/NAME:TAG or REGISTRY/NAME@DIGEST; the last part of NAME is the image's name. IMAGE= before it
                names another one.
            layout: a folder for the copy.
        """
        image, _, name = text.rpartition("=")
        try:
            asked = reference.parse(name)
        except reference.ReferenceError:
            record.artifacts(pathlib.Path(text))
            raise AssertionError(f"{text} is an artifact on disk, not in a registry") from None
        layout.mkdir(parents=True)
        plain = ["--src-tls-verify=false"] if reference.on_this_machine(asked.host) else []
        # Of an index, skopeo would choose one of its platforms, and the others would not be verified.
        options = ["--quiet", "--preserve-digests", "--multi-arch=all", *plain]
        skopeo = [os.path.abspath(self.options.skopeo), "--insecure-policy", "copy", *options]
        try:
            programs.run([*skopeo, f"docker://{name}", f"oci:{layout}"], seconds=programs.SECONDS_OF_TRANSFER)
        except programs.ProgramError as error:
            raise record.RecordError(
                f"{name}: skopeo could not pull it: {errors.one_line(str(error), 500)}. To log in, see"
                " release/README.md"
            ) from None
        try:
            digest = oci_layout.listed_digest(layout)
        except oci_layout.LayoutError as error:
            raise record.RecordError(f"{name}: {error}") from None
        if asked.digest and digest != asked.digest:
            raise record.RecordError(f"{name}: expected that digest, found {digest}")
        return record.artifacts(layout, image or asked.name.rpartition("/")[2])


def record_digest(path: pathlib.Path) -> str:
    """An artifact's digest as the record has it."""
    return stamp.image_digest(path) if path.is_dir() else stamp.sha256(path)


def main() -> int:
    parser = _parser()
    options = parser.parse_args()
    if unknown := set(options.without) - set(second_build.NAMES[2:]):
        parser.error(f"--without: expected {', '.join(second_build.NAMES[2:])}; found {', '.join(sorted(unknown))}")
    if options.record and options.verify:
        parser.error("--record and --verify: expected one of them, found both")
    place = None
    try:
        command = Command(options)
        if options.record:
            # Fail now, not after minutes.
            publish.check_checkout(command.workspace, f"v{options.version}")
            if not command.stamped:
                raise record.RecordError(
                    f"--record: expected a stamped build. To fix it: tools/bazel run --config=release {_TARGET} --"
                    " --record"
                )
        if not options.verify:
            second_build.check(options.without)
        place = _place(options.place)
        good = command.verify(place) if options.verify else command.compare(place)
        if good and options.record:
            command.record()
        return 0 if good else 1
    except (
        compare.CompareError,
        errors.UserError,
        publish.Refused,
        record.RecordError,
        second_build.NotVaried,
        stamp.Untested,
    ) as error:
        errors.tell("reproduce", error)
    except subprocess.CalledProcessError as error:
        print(
            f"reproduce: the second build failed ({' '.join(map(str, error.cmd[-8:]))}): exit status"
            f" {error.returncode}",
            file=sys.stderr,
        )
    finally:
        if place:
            shutil.rmtree(place, ignore_errors=True)
    return 1


if __name__ == "__main__":
    sys.exit(main())
