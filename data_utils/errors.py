"""The one exception a user can cause, and what to do where the system refuses."""

import errno


class JswsError(ValueError):
    """Bad input: names the file or setting, what was found, and what to do."""


def remedy(error: OSError) -> str:
    """What to do about an error of the file system: the end of a message."""
    if error.errno in (errno.ENOSPC, errno.EDQUOT, errno.EFBIG):
        return "free some room, or name another place"
    if error.errno == errno.ENAMETOOLONG:
        return "choose a shorter name"
    return "choose another place"
