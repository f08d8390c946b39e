"""Part `push`: the cost of the checks, documents and signatures of //images:push, against a bare copy of the same image
into the same registry.
"""

from __future__ import annotations

import argparse
import os
import shutil
from pathlib import Path
from statistics import median

import commands
import report

from oci.registry_server import registry

_IMAGE = "tvm_runtime"
_TOOLS = {
    "cosign": "@debian_publish_tools//:cosign",
    "docker-registry": "@debian_container_tools//:docker-registry",
    "skopeo": "@debian_container_tools//:skopeo",
}


def measure(workspace: commands.Bazel, options: argparse.Namespace) -> tuple[str, str]:
    """This part's table, and the versions of what was measured."""
    commands.say("building and testing what is pushed")
    workspace.output("build", "//images:push")
    layout = workspace.file(f"//images:{_IMAGE}")
    tools = {name: workspace.file(target) for name, target in _TOOLS.items()}
    size = sum(blob.stat().st_size for blob in (layout / "blobs/sha256").iterdir())
    times: dict[str, list[tuple[float, float]]] = {"//images:push": [], "skopeo": []}
    environment = {**os.environ, "COSIGN_PASSWORD": ""}
    for run in range(options.push_runs):
        commands.say(f"pushing {size / 1e6:.0f} MB, each way twice, run {run + 1} of {options.push_runs}")
        with commands.scratch() as scratch:
            commands.output(
                [tools["cosign"], "generate-key-pair", "--output-key-prefix", scratch / "key"], env=environment
            )
            # A plain `bazel run` would measure Bazel too; its script starts the same program.
            workspace.output("run", f"--script_path={scratch / 'push'}", "//images:push")
            for name in times:
                folder = scratch / name.strip("/:").replace("/", "_")
                folder.mkdir()
                with registry(str(tools["docker-registry"]), folder) as port:
                    repository = f"127.0.0.1:{port}/bench/{_IMAGE}"
                    ways: dict[str, list[str | Path]] = {
                        "//images:push": [
                            scratch / "push",
                            "--repository",
                            repository,
                            "--tag",
                            "bench",
                            "--key",
                            scratch / "key.key",
                        ],
                        "skopeo": [
                            *(
                                tools["skopeo"],
                                "--insecure-policy",
                                "--tmpdir",
                                scratch,
                                "copy",
                                "--dest-tls-verify=false",
                            ),
                            *(f"oci:{layout}", f"docker://{repository}:bench"),
                        ],
                    }
                    command = ways[name]
                    times[name].append(
                        (commands.seconds(command, env=environment), commands.seconds(command, env=environment))
                    )
                shutil.rmtree(folder)
    rows = []
    for index, what in enumerate([f"{report.size(size)} into an empty registry", "the same again"]):
        ours, bare = (median(pair[index] for pair in times[name]) for name in times)
        rows.append(
            [
                what,
                report.duration(ours),
                report.duration(bare),
                report.duration(ours - bare),
                report.ratio(ours, bare),
                str(options.push_runs),
            ]
        )
    head = [f"push of `{_IMAGE}` over loopback, median", "//images:push", "skopeo copy", "difference", "ratio", "runs"]
    return report.table(head, rows), commands.output([tools["skopeo"], "--version"]).strip()
