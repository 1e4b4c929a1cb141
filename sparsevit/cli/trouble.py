"""What the machine refused, in words: which limit was met, and how to go on.

Only what no code of ours can be the cause of. A file that is missing, a value of a wrong type and
the like are bugs where they get this far, and stay so.
"""

from __future__ import annotations

import errno
import re

from sparsevit.errors import shortened

_DISK = "Free some space, or choose a directory that you can write to (--workspace DIR)."
_LIMIT = "Raise the limit (`ulimit {}`), or ask for less."
_MEMORY = (
    "Use smaller images, a smaller batch, or fewer workers and data loader processes "
    "(--set train_dataloader.num_workers=0); or raise the limit (`ulimit -v`) if there is one."
)
_OTHER_PATH = "Check the path."

_BY_NUMBER = {
    errno.ENOSPC: _DISK,
    errno.EDQUOT: _DISK,
    errno.EACCES: _DISK,
    errno.EPERM: _DISK,
    errno.EROFS: _DISK,
    errno.EFBIG: "Raise the limit on the size of files (`ulimit -f unlimited`).",
    errno.EMFILE: _LIMIT.format("-n"),
    errno.ENFILE: "Close other programs, or raise the system's limit on open files.",
    errno.EAGAIN: "The limit on processes was met: raise it (`ulimit -u`), or use fewer workers.",
    errno.ENOMEM: _MEMORY,
    errno.ENAMETOOLONG: "Use shorter names.",
    errno.ELOOP: "It is a symbolic link that leads back to itself: check the path.",
    errno.ENOTDIR: "A part of the path is a file, not a directory: check the path.",
    errno.EBADF: "A stream is closed that is written to, such as standard output: open it.",
    errno.EISDIR: "Give a file, not a directory.",
    errno.EIO: "Check the disk, or choose another one (--workspace DIR).",
    errno.ESTALE: "The network file system has lost it: run the command again.",
    errno.ETIMEDOUT: "Check the network, or the disk if it is a network's.",
    errno.ENXIO: _OTHER_PATH,
    errno.ENODEV: _OTHER_PATH,
}

_IN_WORDS = (
    (r"bad_alloc|DefaultCPUAllocator|not enough memory|out of memory|allocate memory", _MEMORY),
    (r"failed to map segment|Insufficient memory", _MEMORY),
    (r"can't start new thread|Resource temporarily unavailable", _BY_NUMBER[errno.EAGAIN]),
    (r"Too many open files", _LIMIT.format("-n")),
    (r"No usable temporary directory", "Set TMPDIR to a directory that you can write to."),
    (r"No space left on device", _DISK),
    (r"File too large", _BY_NUMBER[errno.EFBIG]),
)


def describe(error: BaseException) -> tuple[str, str] | None:
    """Problem and remedy of an error that the machine's limits or the user's paths caused.

    Returns:
        None where it is another: a bug of ours, or what nobody has met yet.
    """
    if isinstance(error, MemoryError):
        said = _first_line(error)
        return f"There is not enough memory{f': {said}' if said else ''}.", _MEMORY
    if isinstance(error, UnicodeEncodeError) and "surrogates" in error.reason:
        return (
            f"A name has bytes that are no UTF-8 text: {shortened(ascii(error.object), 200)}.",
            "Rename the file or the directory.",
        )
    if isinstance(error, OSError):
        remedy = _BY_NUMBER.get(error.errno or 0) or _by_words(error)
        where = error.filename if error.filename is not None else "while writing"
        problem = f"{error.strerror or _first_line(error)}: {shortened(str(where), 300)}"
        return None if remedy is None else (problem, remedy)
    if isinstance(error, (RuntimeError, ImportError)) or type(error).__module__ == "cv2":
        remedy = _by_words(error)
        return None if remedy is None else (f"{_first_line(error)}", remedy)
    return None


def _by_words(error: BaseException) -> str | None:
    said = str(error)
    return next((remedy for words, remedy in _IN_WORDS if re.search(words, said)), None)


def _first_line(error: BaseException) -> str:
    return shortened((str(error).strip().splitlines() or [""])[0], 300)
