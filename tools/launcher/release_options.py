"""Which of Bazel's options a release takes from the command line: those that change nothing of what is built.

Provenance names the commit and --config=cuda. An option such as --copt, --define or --override_repository would build
something else under the same names, so options that are not listed here are refused.
"""

from __future__ import annotations

import re
from collections.abc import Collection, Sequence

from fetch import errors

from . import options, rc_files

ALLOWED = frozenset(
    """
    config
    j jobs k keep_going loading_phase_threads local_cpu_resources local_ram_resources local_resources
    announce_rc color curses explain progress_report_interval s show_loading_progress show_progress
    show_progress_rate_limit show_result show_timestamps subcommands ui_actions_shown ui_event_filters
    verbose_explanations verbose_failures
    build_event_binary_file build_event_json_file build_event_text_file profile
    distdir repository_cache
    cache_test_results test_arg test_env test_filter test_output test_summary test_timeout
    """.split()
)
# Bazel's server: where it is and how long it lives.
ALLOWED_STARTUP = frozenset(
    """
    batch connect_timeout_secs home_rc io_nice_level local_startup_timeout_secs max_idle_secs output_base
    output_user_root system_rc workspace_rc
    """.split()
)
# What options may say that with other values change what is built.
ALLOWED_VALUES = {
    # Where inputs come from; the locks have their hashes.
    "repo_env": re.compile(r"(MLC|PIP)_[A-Z_]+(=.*)?", re.DOTALL),
    # For //release:reproduce.
    "sandbox_tmpfs_path": re.compile("/dev/shm"),  # noqa: S108
    "host_jvm_args": re.compile(
        r"-Xm[sx][0-9]+[kKmMgG]?|-Xss[0-9]+[kKmMgG]?|-D(java\.net|javax\.net\.ssl|https?)\.\S+"
    ),
}


def check(line: options.CommandLine) -> None:
    """Checks the options of a release, which reads no rc file but the repository's own.

    Other files are refused (--bazelrc), not checked: Bazel splits their lines by rules of its own.

    Raises:
      errors.UserError: one could change what is built.
    """
    # What build:release in .bazelrc sets is repeated behind all others, so it does not matter here.
    overridden = {_plain(name) for name, _ in options.pairs(rc_files.own_options("build:release"))}
    position = len(line.startup) + 1
    _check(options.startup_pairs(line.startup), ALLOWED_STARTUP)
    _check(options.pairs(line.arguments[position:]), ALLOWED | overridden)


def _check(given: Sequence[tuple[str, str | None]], allowed: Collection[str]) -> None:
    for name, value in given:
        plain = _plain(name)
        if {plain, plain.removeprefix("no")}.isdisjoint(allowed) and not _allows(plain, value):
            shown = errors.one_line(name + ("" if value is None else f"={value}"), 200)
            raise errors.UserError(
                f"{shown} (on the command line): a release does not take this option: it could change what is built,"
                " and the provenance names only the commit. Leave it out, or commit it to .bazelrc"
            )


def _allows(name: str, value: str | None) -> bool:
    return name in ALLOWED_VALUES and value is not None and bool(ALLOWED_VALUES[name].fullmatch(value))


def _plain(name: str) -> str:
    return name.lstrip("-")
