"""Folders from which code is loaded: nobody else may be able to write to them."""

from __future__ import annotations

import atexit
import contextlib
import getpass
import logging
import os
import re
import shutil
import stat
import tempfile
from pathlib import Path

logger = logging.getLogger(__name__)

_INDUCTOR = "TORCHINDUCTOR_CACHE_DIR"


def doubt_of(folder: Path) -> str | None:
    """Who beside the user could put a library into a folder, or another folder in its place."""
    if not hasattr(os, "getuid"):
        return None
    user = os.getuid()
    for each in (folder, *folder.parents):
        status = each.stat()
        if status.st_uid not in ((user,) if each == folder else (user, 0)):
            return f"{each} belongs to another user"
        # in a sticky folder such as /tmp nobody can move what is not theirs
        loose = 0o022 if each == folder else 0 if status.st_mode & stat.S_ISVTX else 0o022
        if status.st_gid in (user, 0):  # a group of one, as many systems give every user
            loose &= ~0o020
        if status.st_mode & loose:
            return f"others can write to {each}"
    return None


def keep_inductor_private() -> None:
    """Give PyTorch's compiler a cache that nobody else can write to.

    Its own lies under a name that is known beforehand, in a folder that all users share, and it
    runs what it finds there. Where others can write to it, a new folder serves this process alone,
    which is logged as a warning.
    """
    try:
        folder = _inductor_folder()
        with contextlib.suppress(FileExistsError):
            folder.mkdir(mode=0o700, parents=True)
        doubt = doubt_of(folder.resolve(strict=True))
    except (OSError, RuntimeError) as error:
        doubt = str(error)
    if doubt is None:
        return
    logger.warning(
        "PyTorch's cache of compiled code is not used: %s. This process has one of its own; to "
        "keep it, make that private (chmod go-w), or set %s to a folder of your own.",
        doubt,
        _INDUCTOR,
    )
    os.environ[_INDUCTOR] = tempfile.mkdtemp(prefix="sparsevit-inductor-")
    atexit.register(shutil.rmtree, os.environ[_INDUCTOR], ignore_errors=True)


def _inductor_folder() -> Path:
    if chosen := os.environ.get(_INDUCTOR):
        return Path(chosen).absolute()
    try:
        user = getpass.getuser()
    except (KeyError, ModuleNotFoundError, OSError):
        user = f"uid_{os.getuid()}" if hasattr(os, "getuid") else "unknown_user"
    return Path(tempfile.gettempdir(), "torchinductor_" + re.sub(r'[\\/:*?"<>|]', "_", user))
