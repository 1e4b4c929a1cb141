"""Mutations of valid artefacts: plain data, text and bytes."""

from __future__ import annotations

import copy
import math
import random
from collections.abc import Iterator
from typing import Any

ESCAPE = "\x1b]0;owned\x07\x1b[31mred\x1b[0m"


def deep_list(depth: int) -> Any:
    value: Any = []
    for _ in range(depth):
        value = [value]
    return value


def deep_dict(depth: int) -> Any:
    value: Any = {}
    for _ in range(depth):
        value = {"a": value}
    return value


NUMBERS: list[Any] = [
    *(0, 1, -1, 2, 7, 255, 2**31, -(2**31) - 1, 2**63, -(2**64), 10**20, 10**400),
    *(0.5, -0.5, 1e-300, 1e308, -1e308, math.nan, math.inf, -math.inf),
]
TEXTS: list[str] = [
    *("", " ", "a", "0.5", "nan", "None", "null", "true", "-1", "1e999", "%s%n", "{}", "${HOME}"),
    *("../../x", "~nobody-of-this/x", "/dev/null", "a" * 300, "x" * 100_000, "a\x00b", "a\nb"),
    *("a\tb",),
    *(ESCAPE, "\u202eabc", "\u2028", "\U0001f600", "\ud800", "²", "１２", "[bold]x[/bold]", "[/x]"),
]  # fmt: skip
OTHERS: list[Any] = [
    *(None, True, False, [], {}, [[]], [None], [{}], {"a": 1}, {"": {}}, {"type": "x"}),
    *([0] * 1000, deep_list(60), deep_dict(60)),
]


def value(rng: random.Random) -> Any:
    """A hostile value of any type."""
    return copy.deepcopy(rng.choice(rng.choice([NUMBERS, TEXTS, OTHERS])))


def nodes(document: Any) -> Iterator[tuple[Any, Any]]:
    """Every place in plain data, as container and key."""
    items: Any = ()
    if isinstance(document, dict):
        items = list(document.items())
    elif isinstance(document, list):
        items = list(enumerate(document))
    for key, child in items:
        yield document, key
        yield from nodes(child)


def document(original: Any, rng: random.Random, times: int | None = None) -> tuple[Any, str]:
    """A mutated copy of plain data, and what was done to it."""
    changed = copy.deepcopy(original)
    done = []
    for _ in range(times or rng.choice([1, 1, 1, 2, 4])):
        places = list(nodes(changed))
        if not places or rng.random() < 0.02:
            return value(rng), "all of it replaced"
        box, key = rng.choice(places)
        done.append(_change(box, key, rng))
    return changed, ", ".join(done)


def _change(box: Any, key: Any, rng: random.Random) -> str:
    what = rng.choice(["replace"] * 6 + ["delete", "double", "wrap", "rename", "scale", "insert"])
    where = str(key)[:30]
    if what == "delete":
        del box[key]
    elif what == "double" and isinstance(box, list):
        box.insert(key, copy.deepcopy(box[key]))
    elif what == "wrap":
        box[key] = rng.choice([[box[key]], {"a": box[key]}, {where: box[key]}])
    elif what == "rename" and isinstance(box, dict):
        box[rng.choice(TEXTS)] = box.pop(key)
    elif what == "insert" and isinstance(box, dict):
        box[rng.choice(["type", "_base_", "_delete_", "extra", *TEXTS])] = value(rng)
    elif what == "scale" and isinstance(box[key], (int, float)):
        box[key] = box[key] * rng.choice([-1, 0, 1000, 10**9])
    else:
        what = "replace"
        box[key] = value(rng)
    return f"{what} {where!r}"


def raw(original: bytes, rng: random.Random) -> tuple[bytes, str]:
    """Damaged bytes, and how."""
    data = bytearray(original)
    size = len(data)
    what = rng.choice(["cut", "flip", "zero", "insert", "drop", "swap", "append", "repeat"])
    at = rng.randrange(size) if size else 0
    if what == "cut":
        del data[at:]
    elif what == "flip":
        for _ in range(rng.choice([1, 5, 50])):
            if size:
                data[rng.randrange(size)] ^= 1 << rng.randrange(8)
    elif what == "zero":
        data[at : at + 64] = bytes(min(64, max(0, size - at)))
    elif what == "insert":
        data[at:at] = rng.randbytes(rng.choice([1, 8, 1000]))
    elif what == "drop":
        del data[at : at + rng.choice([1, 8, 100])]
    elif what == "swap":
        half = size // 2
        data = data[half:] + data[:half]
    elif what == "append":
        data += rng.randbytes(100)
    else:
        data = data[:at] + data[:at]
    return bytes(data), f"{what} at {at} of {size}"


def text(original: str, rng: random.Random) -> tuple[str, str]:
    """Damaged text, and how."""
    if rng.random() < 0.4:
        damaged, how = raw(original.encode(), rng)
        return damaged.decode("utf-8", "surrogateescape"), how
    lines = original.splitlines(keepends=True)
    at = rng.randrange(len(lines))
    what = rng.choice(["drop line", "double line", "indent", "hostile line", "hostile value"])
    if what == "drop line":
        del lines[at]
    elif what == "double line":
        lines.insert(at, lines[at])
    elif what == "indent":
        lines[at] = "   " + lines[at]
    elif what == "hostile line":
        lines.insert(
            at, rng.choice(["]", "}", "- ", "? ", ": ", "\t", "&a *a", "%TAG", "'", '"']) + "\n"
        )
    else:
        head, colon, _ = lines[at].partition(":")
        lines[at] = f"{head}{colon or '='} {value(rng)!s:.2000}\n"
    return "".join(lines), f"{what} {at + 1}"
