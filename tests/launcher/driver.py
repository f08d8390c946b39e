"""Runs tools/bazel's launcher with parts of the machine replaced: driver.py <workspace root> <arguments…>.

The environment variable FAKE is a JSON object: wheels (the pins), upstream (URLs to probe), needed_bytes, machine
(architecture), file_limit (bytes).
"""

import json
import os
import platform
import resource
import sys

sys.path.insert(0, sys.argv[1])

from fetch.debian import archive as debian
from tools.launcher import bootstrap, launcher, probe

fake = json.loads(os.environ["FAKE"])
bootstrap.WHEELS = [tuple(pin) for pin in fake["wheels"]]
bootstrap._NEEDED_BYTES = fake.get("needed_bytes", 1)
debian.verified_text = lambda signed, what: signed.decode()
probe.UPSTREAM = fake.get("upstream", {})
if "machine" in fake:
    platform.machine = lambda: fake["machine"]
if "file_limit" in fake:  # Writing more than this to one file fails, as on a full disk.
    resource.setrlimit(resource.RLIMIT_FSIZE, (fake["file_limit"], fake["file_limit"]))
launcher.main(sys.argv[2:])
