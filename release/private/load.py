"""Loads an image that passed the tests into Podman or Docker.

    tools/bazel run //images:load -- --image tvm_runtime

For development, //images/<image>:load does the same without waiting for the tests.
"""

from __future__ import annotations

import argparse
import json
import os
import pathlib
import sys

from fetch import arguments, errors
from oci import container_tool
from oci import layout as oci_layout
from release.private import stamp


def main() -> int:
    parser = arguments.Parser("//images:load", __doc__)
    parser.add_argument("--gate", type=pathlib.Path, required=True, help=argparse.SUPPRESS)
    parser.add_argument("--layout", type=arguments.named_path, action="append", required=True, help=argparse.SUPPRESS)
    parser.add_argument("--loader", type=arguments.named_path, action="append", required=True, help=argparse.SUPPRESS)
    parser.add_argument("--image", help="the image to load (default: the first)")
    parser.add_argument(
        "--tool", choices=container_tool.ENGINES, help="load into this one (default: the first that works)"
    )
    options = parser.parse_args()
    layouts, loaders = dict(options.layout), dict(options.loader)
    name = options.image or next(iter(layouts))
    if name not in layouts:
        parser.error(f"--image: expected {' or '.join(layouts)}, found {name!r}")
    try:
        stamp.check(json.loads(options.gate.read_text()), layouts[name], name)
        # Of an index, the loader has the first image, that for x86-64.
        digest = next(iter(oci_layout.images(layouts[name]).values())).digest
        tool, _ = container_tool.find(options.tool)
    except (stamp.Untested, container_tool.NoTool) as error:
        errors.tell("load", error)
        return 1
    print(f"load: {name} {digest} into {tool}", file=sys.stderr, flush=True)
    loader = str(loaders[name].absolute())
    os.execve(loader, [loader], container_tool.environment(tool))
    return 0


if __name__ == "__main__":
    sys.exit(main())
