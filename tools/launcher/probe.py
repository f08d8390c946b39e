"""Looks at the network and at programs, quickly: for the choice of the profile, of Bazel, and for `tools/bazel doctor`."""

from __future__ import annotations

import os
import re
import subprocess
import threading
import time
from collections.abc import Mapping

from fetch import download

# What the upstream profile cannot do without.
UPSTREAM = {
    "Bazel Central Registry": "https://bcr.bazel.build/bazel_registry.json",
    "GitHub": "https://github.com/robots.txt",
}


def answers(urls: Mapping[str, str], seconds: float) -> dict[str, str | None]:
    """Asks all at once: name → None where it answers in time, else one line that says why not.

    Args:
      urls: name → URL.
      seconds: how long to wait for all together.
    """
    found: dict[str, str | None] = dict.fromkeys(urls, "no answer within %g s" % seconds)

    def ask(name: str) -> None:
        try:
            with download.open_url(urls[name], timeout=seconds) as response:
                response.read(1)
            found[name] = None
        except Exception as error:  # Whatever goes wrong is the answer.
            found[name] = download.reason(error)

    # Daemons, as looking up a name has no time-out of its own.
    threads = [threading.Thread(target=ask, args=(name,), daemon=True) for name in urls]
    for thread in threads:
        thread.start()
    deadline = time.monotonic() + seconds
    for thread in threads:
        thread.join(max(0, deadline - time.monotonic()))
    return dict(found)


def profile(seconds: float) -> tuple[str, str]:
    """("upstream", why) where all that it needs answers, else ("registries", why)."""
    for name, problem in answers(UPSTREAM, seconds).items():
        if problem:
            return "registries", f"{name} does not answer ({problem})"
    return "upstream", " and ".join(UPSTREAM) + " answer"


def bazel_version(path: str, folder: str) -> str:
    """The version that a Bazel or Bazelisk names in this folder; "" where it names none (Bazelisk may have to download
    it).
    """
    environment = {**os.environ, "BAZELISK_SKIP_WRAPPER": "true"}
    try:
        done = subprocess.run(
            [path, "--version"],
            cwd=folder,
            env=environment,
            stdout=subprocess.PIPE,
            stderr=subprocess.DEVNULL,
            text=True,
            timeout=120,
        )
    except (OSError, subprocess.TimeoutExpired):
        return ""
    match = re.search(r"^bazel (\S+)", done.stdout, re.MULTILINE)
    return match[1] if match and not done.returncode else ""
