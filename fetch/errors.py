"""The one kind of error that the launcher shows as a message instead of a traceback."""


class UserError(Exception):
    """Something that the user can mend; the message says what was expected, what was found and how."""
