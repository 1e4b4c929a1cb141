"""Mistakes in a config that come to light when something is built from it."""

from __future__ import annotations

import traceback
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from sparsevit.errors import UserError

# What a constructor raises that is given what it does not understand.
RAISED = (
    TypeError,
    ValueError,
    LookupError,
    AttributeError,
    AssertionError,
    ImportError,
    NotImplementedError,
)


@contextmanager
def config_mistakes(what: str) -> Iterator[None]:
    """Tell the user where building ``what`` from a config failed, rather than how.

    Raises:
        UserError: instead of what is raised inside; also for a file that is missing.
    """
    try:
        with missing_files():
            yield
    except UserError:
        raise
    except RAISED as error:
        frame = traceback.extract_tb(error.__traceback__)[-1]
        place = f"{Path(frame.filename).name}, line {frame.lineno}"
        raise UserError(
            f"{what} of the config cannot be built: {type(error).__name__}: "
            f"{' '.join(str(error).split())[:400]} ({place}).",
            "Check the values in the config, and those given with --set.",
        ) from error


@contextmanager
def missing_files() -> Iterator[None]:
    """Tell the user which file that a config names is missing.

    Raises:
        UserError: instead of FileNotFoundError.
    """
    try:
        yield
    except FileNotFoundError as error:
        raise UserError(
            f"A file that the config names is missing: {error.filename or error}.",
            "Correct the path in the config, or override it with --set.",
        ) from error
