"""The one exception a user can cause."""


class JswsError(ValueError):
    """Bad input: names the file or setting, what was found, and what to do."""
