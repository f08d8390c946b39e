"""The machines that tools/bazel can assemble Bazel on.

Imports nothing, because every run of the launcher pays for it.
"""

from __future__ import annotations


class Host:
    """One kind of machine.

    Args:
      processor: as `uname -m` calls it.
      architecture: as Debian calls it.
      loader: the file name of its dynamic loader.
      lock: the file in locks/ that pins what Bazel is assembled from there.
    """

    def __init__(self, processor: str, architecture: str, loader: str, lock: str) -> None:
        self.processor, self.architecture, self.lock = processor, architecture, lock
        # Where Debian's packages have libraries, and Bazel's helpers (Debian policy 9.1.1, multiarch).
        self.libraries, self.helpers = (f"usr/{each}/{processor}-linux-gnu" for each in ("lib", "libexec"))
        self.loader = f"{self.libraries}/{loader}"

    def __repr__(self) -> str:
        return self.processor


X86_64 = Host("x86_64", "amd64", "ld-linux-x86-64.so.2", "bazel.lock.json")
ARM64 = Host("aarch64", "arm64", "ld-linux-aarch64.so.1", "bazel_arm64.lock.json")

HOSTS = {host.processor: host for host in (X86_64, ARM64)}
