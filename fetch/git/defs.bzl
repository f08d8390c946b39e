"""What targets that need git sources say, so that a build without sources leaves them out instead of failing.

Example:

    load("//fetch/git:defs.bzl", "NEEDS_SOURCES")

    filegroup(
        name = "libmlc_llm",
        srcs = ["@mlc_llm//:libmlc_llm"],
        target_compatible_with = NEEDS_SOURCES,
    )

In a build of `//...` such a target is skipped, and with it what depends on it; asked for by name, Bazel prints the constraint that is
missing, whose name says what to do.
"""

load("@git_sources//:sources.bzl", "AVAILABLE", "HOW_TO_SUPPLY")
load(":source.bzl", "NO_SOURCES")

# For what can also be had without sources, in another way.
WITH_SOURCES = AVAILABLE

NEEDS_SOURCES = [] if AVAILABLE else [Label("//fetch/git:" + NO_SOURCES)]

def _say_what_is_skipped():
    if not AVAILABLE:
        # buildifier: disable=print
        print("targets that need the sources of mlc-llm are skipped: " + HOW_TO_SUPPLY)

_say_what_is_skipped()
