"""What the gate demands, and what makes that of a release stricter. Pure functions: tests/release/test_policy.py runs them as Python."""

# The tag of a test that takes every image, so that it says nothing of one in particular.
EVERY_IMAGE = "every-image"

# What a tag of a test means for the action that runs it (Bazel's test encyclopedia, "Tag conventions").
_EXECUTION_TAGS = ["local", "no-remote", "no-sandbox", "requires-fakeroot", "requires-network"]

# Anyone who can write to a cache decides what comes out of it, so a release takes no result of a test from one, whatever flags name.
_UNCACHED = ["no-cache", "no-remote-cache"]

def execution_requirements(tags, stamped):
    """The requirements of an action of the gate.

    Args:
      tags: the test's.
      stamped: whether this is a release (--config=release).

    Returns:
      A dict for `execution_requirements`.
    """
    requirements = {tag: "" for tag in tags if tag in _EXECUTION_TAGS}
    return requirements | {name: "" for name in _UNCACHED} if stamped else requirements

def missing_parts(required, packages):
    """What a release lacks.

    Args:
      required: packages of the images and wheels that a release contains.
      packages: those of what this build publishes.

    Returns:
      What to say, or None if nothing is missing.
    """
    missing = [package for package in required if package not in packages]
    if not missing:
        return None
    return (
        "a release contains every part in release/published.bzl, and this build lacks {}: supply mlc-llm's sources, in MLC_SOURCES or with " +
        "MLC_FETCH_SOURCES=1 (README.md, \"Sources of mlc-llm\"), or take the part out of release/published.bzl and commit that"
    ).format(", ".join(["//" + package for package in missing]))

def untested(artifacts, single_images, tests):
    """What would be published untested.

    Args:
      artifacts: files of what is published.
      single_images: those of the images in it.
      tests: for each gating test, its tags and the files that it has as data.

    Returns:
      What to say, or None if each has its test.
    """
    tested, own = {}, {}
    for tags, files in tests:
        for file in files:
            tested[file] = True
            if EVERY_IMAGE not in tags:
                own[file] = True
    for file in artifacts:
        if file not in tested:
            return "no gating test has {} as data, so it would be published untested; add such a test, with gate = True".format(file.short_path)
    for file in single_images:
        if file not in own:
            return "no gating test of its own has {} as data; add such a test, with gate = True".format(file.short_path)
    return None
