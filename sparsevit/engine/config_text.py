"""A config as text that stands alone and reads back as the same config."""

from __future__ import annotations

import keyword
import math
import tempfile
from pathlib import Path
from typing import Any

from mmengine.config import Config

from sparsevit.errors import UserError

_WIDTH = 96
_INDENT = "    "


def dump_config(cfg: Config) -> str:
    """Python text of a config: no ``_base_``, nothing left to look up, keys in the config's order.

    Raises:
        UserError: the config holds something that has no text (an object, a function).
    """
    content = cfg.to_dict()
    for key in content:
        # at the top of the text a key is code
        if not (isinstance(key, str) and key.isidentifier()) or keyword.iskeyword(key):
            raise UserError(
                f"{str(key)[:80]!r} cannot be the name of a value at the top of a config.",
                "Rename it: letters, digits and underscores.",
            )
    text = "".join(f"{key} = {_literal(value, '', key)}\n" for key, value in content.items())
    _refuse_unfaithful(text, content)
    return text


def _literal(value: Any, indent: str, where: str) -> str:
    if isinstance(value, dict):
        return _mapping(value, indent, where)
    if isinstance(value, (list, tuple)):
        return _sequence(value, indent, where)
    if isinstance(value, float) and not math.isfinite(value):
        return f"float('{value}')"
    if value is None or type(value) in (bool, int, float, str, bytes):
        return repr(value)
    if isinstance(value, type):
        return repr(f"{value.__module__}.{value.__qualname__}")
    if isinstance(value, Path):
        return repr(str(value))
    raise UserError(
        f"{where} of the config is a {type(value).__name__}, which cannot be written as text.",
        "Use numbers, strings, lists, tuples and dicts in a config to be exported.",
    )


def _mapping(value: dict[Any, Any], indent: str, where: str) -> str:
    if not value:
        return "dict()"
    inner = indent + _INDENT
    named = all(isinstance(k, str) and k.isidentifier() and not keyword.iskeyword(k) for k in value)
    items = [
        f"{key if named else repr(key)}{'=' if named else ': '}"
        f"{_literal(item, inner, f'{where}.{key}')}"
        for key, item in value.items()
    ]
    return _joined("dict(" if named else "{", items, ")" if named else "}", indent, inner)


def _sequence(value: list[Any] | tuple[Any, ...], indent: str, where: str) -> str:
    inner = indent + _INDENT
    items = [_literal(item, inner, f"{where}.{n}") for n, item in enumerate(value)]
    if isinstance(value, tuple) and len(value) == 1:
        return f"({items[0]},)"
    start, end = ("[", "]") if isinstance(value, list) else ("(", ")")
    return _joined(start, items, end, indent, inner)


def _joined(start: str, items: list[str], end: str, indent: str, inner: str) -> str:
    line = start + ", ".join(items) + end
    if len(line) + len(indent) <= _WIDTH - 20 and "\n" not in line:
        return line
    return f"{start}\n{''.join(f'{inner}{item},{chr(10)}' for item in items)}{indent}{end}"


def _refuse_unfaithful(text: str, content: dict[str, Any]) -> None:
    with tempfile.TemporaryDirectory() as folder:
        path = Path(folder) / "config.py"
        path.write_text(text, encoding="utf-8")
        try:
            again = Config.fromfile(path, import_custom_modules=False).to_dict()
        except Exception as error:  # whatever mmengine meets in the text
            raise UserError(
                f"The config cannot be written as text and read back: {error}.",
                "Rename the key or change the value named in the error.",
            ) from error
    for key, value in content.items():
        if key not in again or _literal(again[key], "", key) != _literal(value, "", key):
            raise UserError(
                f"{key} of the config cannot be written as text and read back.",
                "mmengine replaces {{ ... }} when it reads a config: do not use it in strings.",
            )
