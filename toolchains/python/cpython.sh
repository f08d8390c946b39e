#!/bin/sh
# Runs the CPython of this repository with its own libraries and the loader and C library of @debian_python, its neighbour
# in every program's runfiles, so that none of the host's is loaded. Python looks for its standard library from here.
case "$0" in
*/bin/python3) root="${0%/bin/python3}" ;;
*) root=. ;;
esac
system=$(echo "$root"/../*debian_python)
exec "$system/lib64/ld-linux-x86-64.so.2" --inhibit-cache \
    --library-path "$root:$system/lib/x86_64-linux-gnu:$system/usr/lib/x86_64-linux-gnu" \
    --argv0 "$0" "$root"/bin/python3.* -B -s "$@"
