"""Translates the Cython module of apache-tvm-ffi to C++, as upstream's CMakeLists.txt does.

cythonize --output core.cpp …/tvm_ffi/cython/core.pyx
"""

from __future__ import annotations

import argparse
import os
import pathlib
import sys

from Cython.Compiler.Main import CompilationOptions, compile_single, default_options


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--output", type=pathlib.Path, required=True, help="the C++ file to write")
    parser.add_argument("source", type=pathlib.Path, help="core.pyx, in the folder of the files that it includes")
    arguments = parser.parse_args()
    output, source = arguments.output.absolute(), arguments.source.absolute()
    # The C++ names its sources, in tracebacks too: like files of the package.
    site = source.parents[2]
    os.chdir(site)
    options = CompilationOptions(default_options, cplus=True, output_file=str(output), module_name="tvm_ffi.core")
    return compile_single(str(source.relative_to(site)), options, full_module_name="tvm_ffi.core").num_errors


if __name__ == "__main__":
    sys.exit(main())
