"""The modules of tools/bazel: Python 3.9 or newer, standard library only."""
