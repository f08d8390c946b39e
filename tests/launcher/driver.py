"""Runs tools/bazel's launcher with parts of the machine replaced: driver.py <workspace root> <arguments…>.

The environment variable FAKE is a JSON object: wheels (their pins), upstream (URLs to probe), needed_bytes, machine
(architecture) and file_limit (bytes).
"""

import json
import os
import platform
import resource
import sys

sys.path.insert(0, sys.argv[1])

from fetch.debian import archive as debian
from tools.launcher import install, profile, start

fake = json.loads(os.environ["FAKE"])
install.WHEELS = tuple(tuple(pin) for pin in fake["wheels"])
install._NEEDED_BYTES = fake.get("needed_bytes", 1)
debian.verified_text = lambda signed, what: signed.decode()
profile.UPSTREAM = fake.get("upstream", {})
if "machine" in fake:
    platform.machine = lambda: fake["machine"]
if "file_limit" in fake:  # Writing more than this to one file fails, like on a full disk.
    resource.setrlimit(resource.RLIMIT_FSIZE, (fake["file_limit"], fake["file_limit"]))
start.main(sys.argv[2:])
