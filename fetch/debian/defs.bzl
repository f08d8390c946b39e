"""`debian_packages`: the .deb files of a set for the platform of the target."""

load("//platforms:defs.bzl", "by_cpu")

def debian_packages(name):
    """The packages, as a list of labels for an attribute.

    Args:
        name: a repository of debian.packages, of which there is another one called <name>_arm64.
    """
    return by_cpu(["@{}//:packages".format(name)], ["@{}_arm64//:packages".format(name)])
