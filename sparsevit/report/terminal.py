"""What reaches a terminal: names and texts of files as they are, but nothing that steers it."""

from __future__ import annotations

import re
from collections.abc import Iterable
from typing import Any

from rich.console import Console
from rich.segment import Segment
from rich.text import Text

# Control characters but newline and tab, separators of lines, marks that turn the direction of
# writing, and the halves of surrogates by which Python reads names that are not UTF-8.
_STEERING = re.compile(
    "[\x00-\x08\x0b-\x1f\x7f-\x9f\u061c\u200e\u200f\u2028-\u202e\u2066-\u2069\ud800-\udfff]"
)


def visible(text: str) -> str:
    """A text with what would steer a terminal spelled out: an escape as ``\\x1b``."""
    return _STEERING.sub(lambda found: ascii(found[0])[1:-1], text)


def one_line(text: str) -> str:
    """The same, newlines too."""
    return visible(text).replace("\n", "\\n")


def plot_text(text: str) -> str:
    """The same for matplotlib, which would read formulas between dollars."""
    return visible(text).replace("$", r"\$")


class Terminal(Console):
    """A console on which texts are only texts: no markup, no emoji codes, no escape sequences."""

    def __init__(self, **options: Any) -> None:
        super().__init__(**{"markup": False, "emoji": False, **options})

    def render_str(self, text: str, **options: Any) -> Text:
        return super().render_str(visible(text), **options)

    def render(self, *arguments: Any, **options: Any) -> Iterable[Segment]:
        for segment in super().render(*arguments, **options):
            if segment.control:
                yield segment
            else:
                yield Segment(visible(segment.text), segment.style)
