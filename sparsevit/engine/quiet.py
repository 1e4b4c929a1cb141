"""Libraries that speak while they work are heard in log files, not on the terminal."""

from __future__ import annotations

import contextlib
import io
import logging
import warnings
from collections.abc import Iterator

from mmengine.logging import MMLogger


@contextlib.contextmanager
def quiet_libraries() -> Iterator[None]:
    """No warnings, no prints and no log lines on the console within this context."""
    logger = MMLogger.get_current_instance()
    mute_console(logger)
    with warnings.catch_warnings(), contextlib.redirect_stdout(io.StringIO()):
        warnings.simplefilter("ignore")
        yield


def mute_console(logger: logging.Logger) -> None:
    """Take the console away from a logger; its files stay."""
    for handler in list(logger.handlers):
        if type(handler) is logging.StreamHandler:
            logger.removeHandler(handler)
    if not logger.handlers:
        # a logger without any handler falls back to one that prints
        logger.addHandler(logging.NullHandler())
