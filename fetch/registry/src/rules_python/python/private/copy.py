"""Copies a file: copy.py SOURCE TARGET."""

import shutil
import sys

shutil.copyfile(*sys.argv[1:])
