"""Words of the command line that stand for several values."""

from __future__ import annotations

from sparsevit.errors import UserError


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
    parts = text.lower().split("x")
    if len(parts) > 2 or not all(p.isdigit() and int(p) > 0 for p in parts):
        raise UserError(
            f"The image size {text} is not a size.",
            "Write one number, or WIDTHxHEIGHT: 672 or 1333x800.",
        )
    return int(parts[-1]), int(parts[0])
