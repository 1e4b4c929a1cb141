"""Where a run came from: command line, versions, git state. Imports none of what it names."""

from __future__ import annotations

import functools
import os
import platform
import shlex
import socket
import subprocess
import sys
from datetime import datetime, timezone
from importlib import metadata
from pathlib import Path
from typing import Any

from sparsevit.secrets import masked, masked_url

_DISTRIBUTIONS: dict[str, tuple[str, ...]] = {
    "sparsevit": ("sparsevit",),
    "torch": ("torch",),
    "torchvision": ("torchvision",),
    "mmengine": ("onedl-mmengine", "mmengine", "mmengine-lite"),
    "mmcv": ("onedl-mmcv", "mmcv", "mmcv-lite"),
    "mmdet": ("onedl-mmdetection", "mmdet"),
    "optuna": ("optuna",),
    "numpy": ("numpy",),
}
_GIT_SECONDS = 5.0
# A repository's own settings may name programs (a monitor of files, a transport) that git runs, and
# without optional locks `git status` does not write the index of a repository that is not ours.
_GIT = ("git", "-c", "core.fsmonitor=false", "-c", "core.hooksPath=/dev/null")
_GIT_ENVIRONMENT = {
    "GIT_OPTIONAL_LOCKS": "0",
    "GIT_NO_LAZY_FETCH": "1",
    "GIT_ALLOW_PROTOCOL": "none",
}


def now() -> str:
    """The time in UTC, ISO 8601, to the millisecond."""
    return datetime.now(timezone.utc).isoformat(timespec="milliseconds")


def hostname() -> str:
    """This machine's name."""
    return socket.gethostname()


def command_line() -> str:
    """What was typed, as a shell would take it again; the program without its folder.

    Passwords in it are masked.
    """
    words = list(getattr(sys, "argv", None) or [""])
    words[0] = os.path.basename(words[0]) or "python"
    return shlex.join(map(_shown_word, words))


def _shown_word(word: str) -> str:
    """A word of a command line without the password of a URL, which may have a space in it."""
    option, equals, url = word.partition("=") if word.startswith("-") else ("", "", word)
    return option + equals + (masked_url(url) if "://" in url else masked(url))


@functools.cache
def _versions() -> tuple[tuple[str, str], ...]:
    found = [("python", platform.python_version())]
    for name, distributions in _DISTRIBUTIONS.items():
        version = next(filter(None, map(_version, distributions)), None)
        if version is not None:
            found.append((name, version))
    return tuple(found)


def versions() -> dict[str, str]:
    """Name -> version of Python and of the installed libraries that a result may depend on."""
    return dict(_versions())


def git_state(folder: Path | None = None) -> dict[str, Any] | None:
    """``{"commit": str, "dirty": bool}`` of the repository around ``folder``; None without one.

    Args:
        folder: the current one by default. Untracked files do not make it dirty.
    """
    commit = _git(folder, "rev-parse", "HEAD")
    if commit is None:
        return None
    filters = _git(folder, "config", "--show-scope", "--get-regexp", r"^filter\.") or ""
    if any(line.split("\t")[0] not in ("system", "global") for line in filters.splitlines()):
        # `git status` would run the repository's filters; a touched file counts as changed then
        changes = _git(folder, "diff-index", "--name-only", "--ignore-submodules", "HEAD")
    else:
        changes = _git(
            folder, "status", "--porcelain", "--untracked-files=no", "--ignore-submodules=dirty"
        )
    return {"commit": commit.strip(), "dirty": bool(changes and changes.strip())}


def _version(distribution: str) -> str | None:
    try:
        return metadata.version(distribution)
    except metadata.PackageNotFoundError:
        return None


def _git(folder: Path | None, *arguments: str) -> str | None:
    try:
        done = subprocess.run(
            [*_GIT, *arguments],
            cwd=folder,
            env={**os.environ, **_GIT_ENVIRONMENT},
            stdin=subprocess.DEVNULL,
            capture_output=True,
            text=True,
            timeout=_GIT_SECONDS,
            check=False,
        )
    except (OSError, subprocess.SubprocessError, UnicodeDecodeError):
        return None
    return done.stdout if done.returncode == 0 else None
