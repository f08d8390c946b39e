#!/bin/sh
# Runs the CPython of @debian_python_arm64, on another processor with @debian_emulator: its neighbours in every program's
# runfiles. Programs that it starts are not emulated.
folder="${0%/*}/../../.."
python=$(echo "$folder"/*debian_python_arm64)
[ "$(uname -m)" = aarch64 ] && exec "$python/usr/bin/python3" "$@"
exec "$folder"/*debian_emulator/usr/bin/qemu-aarch64-static -L "$python" "$python/usr/bin/python3.11" -B -s "$@"
