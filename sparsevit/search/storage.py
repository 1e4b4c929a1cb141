"""Where studies are kept, as a URL."""

from __future__ import annotations

import os
from pathlib import Path

from sparsevit.secrets import masked_url


def storage_url(storage: str | os.PathLike[str]) -> str:
    """What a storage is, as a URL: as it is where it is one.

    Of a file the suffix tells: ``.log`` is Optuna's journal, for file systems that several machines
    share; anything else SQLite's.
    """
    text = os.fspath(storage)
    if "://" in text:
        return text
    kind = "journal" if text.endswith(".log") else "sqlite"
    return f"{kind}:///{Path(text).absolute()}"


def shown_url(storage: str | os.PathLike[str]) -> str:
    """The URL without the password that may be in it."""
    return masked_url(storage_url(storage))
