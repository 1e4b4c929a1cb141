"""How many CPU threads were asked for, in this process and in those that it starts."""

from __future__ import annotations

import os

VARIABLE = "SPARSEVIT_THREADS"


def asked_threads() -> int | None:
    """The number that ``--threads`` gave; None where PyTorch decides."""
    text = os.environ.get(VARIABLE, "")
    return int(text) if text.isascii() and text.isdigit() else None
