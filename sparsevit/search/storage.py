"""Where studies are kept, as a URL."""

from __future__ import annotations

import os

from sparsevit.errors import UserError
from sparsevit.plain_files import expanded
from sparsevit.secrets import masked_url

_KINDS = ("sqlite", "journal", "postgresql", "postgres", "mysql", "mariadb", "mssql", "oracle")


def storage_url(storage: str | os.PathLike[str]) -> str:
    """What a storage is, as a URL: as it is where it is one.

    Of a file the suffix tells: ``.log`` is Optuna's journal, for file systems that several machines
    share; anything else SQLite's.

    Raises:
        UserError: it begins like a URL, and is none; it is of a user that there is not; or its name
            is no text.
    """
    text = os.fspath(storage)
    if "://" in text:
        return text
    kind, colon, _ = text.partition(":")
    if colon and kind.partition("+")[0] in _KINDS:
        raise UserError(
            f"The storage {masked_url(text)} is no URL.",
            f"It begins with {kind}://, with both slashes.",
        )
    path = expanded(text)
    if str(path).startswith("~"):
        raise UserError(
            f"The storage {text} is in the home folder of a user that there is not.",
            "Write the path in full.",
        )
    try:
        os.fspath(path.absolute()).encode()
    except UnicodeEncodeError:
        raise UserError(
            f"The storage {text!a} has a name that is not UTF-8, which no database takes.",
            "Give another one with --storage.",
        ) from None
    kind = "journal" if text.endswith(".log") else "sqlite"
    return f"{kind}:///{path.absolute()}"


def shown_url(storage: str | os.PathLike[str]) -> str:
    """The URL without the password that may be in it."""
    return masked_url(storage_url(storage))
