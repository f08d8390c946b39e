"""The network profile of a build, and the probe that chooses it.

Most runs do not probe, so this module imports what a probe needs only when one runs.
"""

from __future__ import annotations

import os
import time

from fetch import errors
from fetch.bazel import hosts

from . import installed, machine

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Mapping

PROFILES = ("upstream", "registries")

# The upstream profile needs all of these.
UPSTREAM = {
    "Bazel Central Registry": "https://bcr.bazel.build/bazel_registry.json",
    "GitHub": "https://github.com/robots.txt",
}

_PROBE_SECONDS = 2.0


def choose(configs: Mapping[str, str], anew: bool = False) -> tuple[str, str]:
    """Returns the network profile and why: a config decides, then MLC_PROFILE, then a probe, cached for an hour.

    Args:
      configs: the configs that the command runs with, and what names each (`rc_files.configs`).
      anew: probe even if the cached result is still valid.

    Raises:
      errors.UserError: the choice is none, or one that this machine cannot use.
    """
    if installed.host() is not hosts.ARM64:
        return _choose(configs, anew)
    given = os.environ.get("MLC_PROFILE") or any(profile in configs for profile in PROFILES)
    chosen, why = _choose(configs, anew) if given else ("registries", f"the only one on {hosts.ARM64}")
    if chosen != "registries":
        raise errors.UserError(
            f"profile {chosen}, from {why}: expected registries, the only one on {hosts.ARM64}: upstream's rules take"
            f" the tools of a build from the lock for {hosts.X86_64}"
        )
    return chosen, why


def _choose(configs: Mapping[str, str], anew: bool) -> tuple[str, str]:
    named = [profile for profile in PROFILES if profile in configs]
    if len(named) > 1:
        raise errors.UserError(
            "expected one network profile, found "
            + " and ".join(f"--config={profile} ({configs[profile]})" for profile in named)
            + ": Bazel would use both. Remove one."
        )
    if named:
        return named[0], f"--config ({configs[named[0]]})"
    chosen = os.environ.get("MLC_PROFILE")
    if chosen:
        if chosen not in PROFILES:
            raise errors.UserError(f"MLC_PROFILE: expected {' or '.join(PROFILES)}, found '{chosen}'")
        return chosen, "MLC_PROFILE"
    known = None if anew else machine.remembered("profile", "probe")
    if not (isinstance(known, list) and [type(each) for each in known] == [str, str] and known[0] in PROFILES):
        known = probe(_PROBE_SECONDS)
        machine.remember("profile", "probe", known)
    profile, why = known
    return profile, why


def probe(seconds: float) -> tuple[str, str]:
    """Returns ("upstream", why) if all of UPSTREAM answers, else ("registries", why)."""
    for name, problem in answers(UPSTREAM, seconds).items():
        if problem:
            return "registries", f"{name} does not answer ({problem})"
    return "upstream", " and ".join(UPSTREAM) + " answer"


def answers(urls: Mapping[str, str], seconds: float) -> dict[str, str | None]:
    """Requests all URLs at once. Maps each name to None if its URL answers in time, else to a one-line reason.

    Args:
      urls: name → URL.
      seconds: time limit for all of them together.
    """
    import threading

    from fetch import download

    found: dict[str, str | None] = dict.fromkeys(urls, f"no answer within {seconds:g} s")

    def ask(name: str) -> None:
        try:
            with download.open_url(urls[name], timeout=seconds) as response:
                response.read(1)
            found[name] = None
        except Exception as error:  # Any failure is an answer.
            found[name] = download.reason(error)

    # Daemon threads, because looking up a host name has no time limit.
    threads = [threading.Thread(target=ask, args=(name,), daemon=True) for name in urls]
    for thread in threads:
        thread.start()
    deadline = time.monotonic() + seconds
    for thread in threads:
        thread.join(max(0, deadline - time.monotonic()))
    return dict(found)
