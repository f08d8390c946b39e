"""Parses Bazel's command line. The launcher looks for options nowhere else."""

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


def startup_values(arguments: Sequence[str], name: str) -> list[str]:
    """Returns the values of a startup option, for example "--output_base", in either spelling (--x=v, --x v).

    Args:
      arguments: the startup options, without the command.
    """
    values, position = [], 0
    while position < len(arguments):
        argument = arguments[position]
        if argument.startswith(name + "="):
            values.append(argument[len(name) + 1 :])
        if argument in WITH_VALUE:
            position += 1
            if argument == name and position < len(arguments):
                values.append(arguments[position])
        position += 1
    return values


def configs(arguments: Sequence[str]) -> list[str]:
    """Returns the values of --config in the options of a command, in order.

    Args:
      arguments: what follows the command, or a line of an rc file. Nothing after "--" is an option of Bazel's.
    """
    return _scan(arguments)[0]


def end_of_options(arguments: Sequence[str]) -> int:
    """Returns the index of the "--" that ends Bazel's options, else the number of arguments."""
    return _scan(arguments)[1]


def first_residue(arguments: Sequence[str], start: int) -> int | None:
    """Returns the index of the first argument that is no option, such as the target of `run`, or None.

    Args:
      arguments: a whole command line.
      start: where the options of the command begin.
    """
    from . import bazel_options

    position = start
    while position < len(arguments):
        argument = arguments[position]
        if argument == "--":
            return position + 1 if position + 1 < len(arguments) else None
        if not argument.startswith("-"):
            return position
        position += 2 if argument in bazel_options.WITH_VALUE else 1
    return None


def pairs(arguments: Sequence[str]) -> list[tuple[str, str | None]]:
    """Returns the options of a command with their values, in either spelling; one without a value has None.

    Args:
      arguments: what follows the command, or a line of an rc file.
    """
    from . import bazel_options

    found: list[tuple[str, str | None]] = []
    rest = iter(arguments[: end_of_options(arguments)])
    for argument in rest:
        name, equals, value = argument.partition("=")
        if argument.startswith("-"):
            takes_next = not equals and argument in bazel_options.WITH_VALUE
            found.append((name, next(rest, None) if takes_next else value if equals else None))
    return found


def startup_pairs(arguments: Sequence[str]) -> list[tuple[str, str | None]]:
    """Returns startup options with their values, as `pairs` does for a command's."""
    found: list[tuple[str, str | None]] = []
    rest = iter(arguments)
    for argument in rest:
        name, equals, value = argument.partition("=")
        found.append((name, next(rest, None) if argument in WITH_VALUE else value if equals else None))
    return found


def _scan(arguments: Sequence[str]) -> tuple[list[str], int]:
    found, position = [], 0
    while position < len(arguments):
        argument = arguments[position]
        if argument == "--":
            break
        if argument.startswith("--config="):
            found.append(argument[len("--config=") :])
        elif _takes_next(argument, arguments[position + 1 : position + 2]):
            position += 1
            if argument == "--config":
                found.append(arguments[position])
        position += 1
    return found, min(position, len(arguments))


def _takes_next(argument: str, following: Sequence[str]) -> bool:
    """Says whether an argument is an option whose value is the next argument."""
    if not following or not argument.startswith("-") or "=" in argument:
        return False
    if argument == "--config":
        return True
    # Only here does it matter which of the other options have a value.
    if following[0] != "--" and not following[0].startswith("--config"):
        return False
    from . import bazel_options

    return argument in bazel_options.WITH_VALUE


class CommandLine:
    """A whole command line of Bazel.

    Attributes:
      arguments: all of it.
      startup: the startup options.
      command: the command, or None.
      configs: the values of --config on it, in order.
    """

    def __init__(self, arguments: Sequence[str]) -> None:
        self.arguments = list(arguments)
        self._position = command_index(arguments)
        end = len(self.arguments) if self._position is None else self._position
        self.startup = self.arguments[:end]
        self.command = None if self._position is None else self.arguments[self._position]
        self.configs = configs(self.arguments[end + 1 :])

    def with_startup(self, *options: str) -> CommandLine:
        """Returns the command line with more startup options in front."""
        return CommandLine([*options, *self.arguments])

    def with_first(self, *options: str) -> CommandLine:
        """Returns the command line with options right after the command, where all others override them."""
        position = self._after_command()
        return CommandLine([*self.arguments[:position], *options, *self.arguments[position:]])

    def with_last(self, *options: str) -> CommandLine:
        """Returns the command line with options behind all others of Bazel's, so that they override these."""
        position = self._after_command()
        position += end_of_options(self.arguments[position:])
        return CommandLine([*self.arguments[:position], *options, *self.arguments[position:]])

    def _after_command(self) -> int:
        assert self._position is not None, "a command line without a command has no options"
        return self._position + 1
