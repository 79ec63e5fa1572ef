"""Whether uploads can be spooled: a directory for temporary files that cannot be written is an error of the set-up."""

from __future__ import annotations

import errno
from tempfile import TemporaryFile

from service.errors import StorageUnwritable

_PASSING = frozenset({errno.ENOSPC, errno.EDQUOT, errno.EMFILE, errno.ENFILE})
"""Errors that end by themselves: no space, or too many open files."""


def check_temporary_files() -> None:
    """Create a temporary file.

    Raises:
        StorageUnwritable: if none can be created, for a reason that does not end by itself.
    """
    try:
        with TemporaryFile():
            pass
    except OSError as error:
        if error.errno not in _PASSING:
            raise StorageUnwritable(
                "The service has no directory in which it can write temporary files; its operator must set TMPDIR."
            ) from error
