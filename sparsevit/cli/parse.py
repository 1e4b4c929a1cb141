"""Words of the command line that stand for several values."""

from __future__ import annotations

import re

from sparsevit.errors import UserError, shortened


def ratios(text: str, option: str) -> list[float]:
    """``"0.3,0.6"`` -> [0.3, 0.6]; an empty text for none.

    Raises:
        UserError: a part is not a number; whether it is a ratio is for the phase to say.
    """
    parts = [part.strip() for part in text.split(",") if part.strip()]
    try:
        return [float(part) for part in parts]
    except ValueError:
        raise UserError(f"{option} {text}: not a list of ratios.", "Write e.g. 0.3,0.6.") from None


def image_size(text: str | None) -> tuple[int, int] | None:
    """``"672"`` -> (672, 672); ``"1333x800"`` (width x height) -> (800, 1333), height first.

    Raises:
        UserError: it is not a size.
    """
    if text is None:
        return None
    if not re.fullmatch(r"0*[1-9][0-9]{0,8}(x0*[1-9][0-9]{0,8})?", text.lower()):
        raise UserError(
            f"The image size {shortened(text)} is not a size.",
            "Write one number, or WIDTHxHEIGHT: 672 or 1333x800.",
        )
    parts = text.lower().split("x")
    return int(parts[-1]), int(parts[0])
