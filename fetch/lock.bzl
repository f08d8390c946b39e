"""The reader of JSON locks for Starlark; fetch/locks.py is the one for Python, and refuses the same.

Tests also evaluate it as Python, so it uses only the common core of Starlark and Python, and the module json.
"""

_BLANKS = " \t\r\n"

def _without_blanks(text):
    for index in range(len(_BLANKS)):
        text = text.replace(_BLANKS[index], "")
    return text

def read_lock(text, path):
    """Reads a JSON lock, in which no object may have a key twice.

    json.decode takes the last of two entries silently. What it has dropped is missing when the content is written again, and only that is:
    locks have no escapes, and order does not change the length.

    Args:
        text: the lock's content.
        path: its name for errors.

    Returns:
        A pair: the content, and an error or None.
    """
    content = json.decode(text, default = None)
    if content == None:
        return None, "%s: expected JSON; restore the file from git" % path
    if "\\" in text or len(_without_blanks(json.encode(content))) != len(_without_blanks(text)):
        return None, "%s: expected each key once, in plain text, found one twice or an escape; restore the file from git" % path
    return content, None

def must_read_lock(context, label):
    """Reads a JSON lock, or fails.

    Args:
        context: a module or repository context.
        label: the lock's Label.

    Returns:
        The content.
    """
    content, error = read_lock(context.read(label), "locks/" + label.name)
    if error:
        fail(error)
    return content
