#!/usr/bin/env python3
"""Has a first line that makes it a program."""

from greeting import main

if __name__ == "__main__":
    main()
