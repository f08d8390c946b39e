"""Builds everything a second time, as another machine would, and compares the bytes with those of this build:
//release:reproduce as a test.
"""

import sys

from release.private.reproduce import command

if __name__ == "__main__":
    sys.exit(command.main())
