"""Locks of files that go with their process, however it ends."""

from typing import IO


def try_lock(file: IO, *, wait: bool = False) -> bool:
    """Hold the lock of an open file as long as it stays open, here and in processes that inherit it.

    Args:
        file: open for writing.
        wait: until whoever holds it lets go.

    Returns:
        whether nobody else holds it; true as well where there are no locks (on Windows, on some file systems).
    """
    try:
        import fcntl
    except ImportError:
        return True
    try:
        fcntl.flock(file, fcntl.LOCK_EX | (0 if wait else fcntl.LOCK_NB))
    except BlockingIOError:
        return False
    except OSError:
        return True
    return True
