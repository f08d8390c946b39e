"""Errors that programs show as a message instead of a traceback."""


class UserError(Exception):
    """An error that the user can fix; the message says what was expected, what was found and what to do."""
