"""Bazel's command line: where its startup options end."""

from __future__ import annotations

from collections.abc import Sequence

# Startup options whose value may be a separate argument.
WITH_VALUE = frozenset(
    """
    --airgap --airgap-digest --bazelrc --command_port --connect_timeout_secs --digest_function --failure_detail_out
    --host_jvm_args
    --install_base --invocation_policy --io_nice_level --local_startup_timeout_secs --macos_qos_class --max_idle_secs
    --output_base --output_user_root --server_javabase --server_jvm_out --unix_digest_hash_attribute_name
    """.split()
)


def command_index(arguments: Sequence[str]) -> int | None:
    """Returns the index of Bazel's command, the first argument that belongs to no startup option, or None."""
    position = 0
    while position < len(arguments):
        if not arguments[position].startswith("-"):
            return position
        position += 2 if arguments[position] in WITH_VALUE else 1
    return None
