"""Runs //release:reproduce as a test: builds everything again as another machine would, and compares the bytes."""

import sys

from release.private.reproduce import command

if __name__ == "__main__":
    sys.exit(command.main())
