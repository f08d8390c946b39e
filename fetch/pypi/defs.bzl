"""`pypi_wheels`: locked wheels from PyPI for the platform of the target."""

load("//platforms:defs.bzl", "by_cpu")

def pypi_wheels(names):
    """The wheels, as a list of labels for an attribute.

    Args:
        names: distributions of locks/requirements.lock.txt, normalized with "_".
    """
    return by_cpu(
        ["@pypi//{}:whl".format(name) for name in names],
        ["@pypi_arm64//{}:whl".format(name) for name in names],
    )
