"""Marks targets that need git sources, so that a build without sources skips them instead of failing.

Example:

    load("//fetch/git:defs.bzl", "NEEDS_SOURCES")

    filegroup(
        name = "libmlc_llm",
        srcs = ["@mlc_llm//:libmlc_llm"],
        target_compatible_with = NEEDS_SOURCES,
    )

A build of `//...` skips such a target and everything that depends on it. If you name the target, Bazel prints the missing constraint, whose
name says what to do.
"""

load("@git_sources//:sources.bzl", "AVAILABLE", "HOW_TO_SUPPLY")
load(":source.bzl", "NO_SOURCES")

# For targets that have another way without sources.
WITH_SOURCES = AVAILABLE

# For target_compatible_with: without the sources of mlc-llm such a target is skipped.
NEEDS_SOURCES = [] if AVAILABLE else [Label("//fetch/git:" + NO_SOURCES)]

def _say_what_is_skipped():
    if not AVAILABLE:
        # buildifier: disable=print
        print("targets that need the sources of mlc-llm are skipped: " + HOW_TO_SUPPLY)

_say_what_is_skipped()
