"""Files that a user gives, read as data: whatever is in them, an answer within a second.

A small YAML or JSON file is text, mappings, lists, numbers and words, and nothing else: no file of
any size, no nesting without end, no alias that stands for a thousand others, no key given twice, no
tag that asks for an object. Needs neither torch nor a framework.
"""

from __future__ import annotations

import errno
import json
import os
import stat
from collections.abc import Iterator
from pathlib import Path
from typing import Any, BinaryIO

import yaml

from sparsevit.errors import UserError, shortened

MOST_BYTES = 1 << 18
MOST_RECORD_BYTES = 1 << 26
MOST_DEPTH = 64
MOST_DIGITS = 300
"""Of a number, written out: a float has no more."""

_UTF16 = (b"\xff\xfe", b"\xfe\xff")
_TUPLE = "tag:yaml.org,2002:python/tuple"

_KINDS = {
    stat.S_IFDIR: "a folder",
    stat.S_IFIFO: "a pipe",
    stat.S_IFSOCK: "a socket",
    stat.S_IFCHR: "a device",
    stat.S_IFBLK: "a device",
}
_REASONS = {
    errno.ENOENT: "it does not exist",
    errno.ENOTDIR: "a part of its path is a file, not a folder",
    errno.EACCES: "you have no permission to read it",
    errno.EPERM: "you have no permission to read it",
    errno.ELOOP: "it is a symbolic link that leads back to itself",
    errno.ENAMETOOLONG: "its name is too long",
}


class NotPlain(ValueError):
    """Text that is not the plain data it should be; the message says why."""


def expanded(path: str | os.PathLike[str]) -> Path:
    """``path`` with ``~`` and ``~user`` expanded; as it is where there is no such user."""
    return Path(os.path.expanduser(os.fspath(path)))


def open_file(path: str | os.PathLike[str], what: str = "file") -> BinaryIO:
    """Open a regular file to read its bytes. Never waits, as a pipe would make it.

    Args:
        path: of the file; ``~`` is not expanded.
        what: it should be, for the error: ``checkpoint``.

    Raises:
        UserError: it is missing, cannot be read, or is a folder, a pipe, a device or a socket.
    """
    try:
        descriptor = os.open(
            path, os.O_RDONLY | getattr(os, "O_NONBLOCK", 0) | getattr(os, "O_CLOEXEC", 0)
        )
    except (OSError, ValueError) as error:
        # a socket cannot be opened at all, nor can a path with a null byte in it
        kind = _kind(path) if isinstance(error, OSError) else None
        raise _unreadable(path, what, error) if kind is None else _other(path, what, kind) from None
    kind = _KINDS.get(stat.S_IFMT(os.fstat(descriptor).st_mode))
    if kind is None:
        return os.fdopen(descriptor, "rb")
    os.close(descriptor)
    raise _other(path, what, kind)


def read_regular(path: Path) -> str:
    """The UTF-8 text of a file that we wrote; of a pipe or a device there would be no end.

    Raises:
        OSError: there is none, it cannot be read, or it is no regular file.
        UnicodeDecodeError: it is no UTF-8.
    """
    if not stat.S_ISREG(path.stat().st_mode):
        raise OSError(errno.EINVAL, "it is not a regular file", str(path))
    return path.read_text(encoding="utf-8")


def read_text(
    path: str | os.PathLike[str], what: str = "file", most_bytes: int = MOST_BYTES
) -> str:
    """The text of a small UTF-8 file, without the byte order mark that some editors write.

    Raises:
        UserError: as :func:`open_file`; or it is too large, or no UTF-8 text.
    """
    try:
        with open_file(path, what) as file:
            content = file.read(most_bytes + 1)
    except OSError as error:
        raise _unreadable(path, what, error) from error
    if len(content) > most_bytes:
        raise UserError(
            f"{_named(path)} is too large: it has more than {most_bytes:,} bytes.",
            "Check the path: such a file usually has a few hundred.",
        )
    if content.startswith(_UTF16):
        raise UserError(
            f"{_named(path)} cannot be read: it is UTF-16 text.",
            "Save it as UTF-8, for example with `iconv`.",
        )
    try:
        text = content.decode("utf-8-sig")
    except UnicodeDecodeError as error:
        raise UserError(
            f"{_named(path)} cannot be read: it is not UTF-8 text (byte {error.start} is "
            f"0x{content[error.start]:02x}).",
            f"Check that it is the {what} you mean, and save it as UTF-8.",
        ) from None
    if "\0" in text:
        raise UserError(
            f"{_named(path)} cannot be read: it is no text, as it has null bytes.",
            f"Check that it is the {what} you mean.",
        )
    return text


def read_plain(
    path: str | os.PathLike[str],
    what: str = "file",
    remedy: str = "",
    *,
    most_bytes: int = MOST_BYTES,
    tuples: bool = False,
) -> Any:
    """The data of a small YAML or JSON file; JSON by the suffix ``.json``.

    Args:
        path: of the file.
        what: it should be, for errors: ``sparsity file``.
        remedy: what to do where it is not valid.
        most_bytes: a larger file is refused unread.
        tuples: take YAML's ``!!python/tuple``, as mmengine writes it.

    Raises:
        UserError: it cannot be read, is too large, or is not plain data; see :func:`parse_plain`.
    """
    text = read_text(path, what, most_bytes)
    form = "JSON" if Path(path).suffix.lower() == ".json" else "YAML"
    try:
        return parse_plain(text, form, tuples=tuples)
    except NotPlain as error:
        raise UserError(f"{_named(path)} is not valid {form}: {error}.", remedy) from None


def parse_plain(text: str, form: str = "YAML", *, tuples: bool = False) -> Any:
    """The data in a text: mappings, lists, text, numbers, dates, true, false and null.

    Args:
        text: of a small file: reading takes seconds for each megabyte.
        form: ``YAML`` or ``JSON``.
        tuples: take YAML's ``!!python/tuple``.

    Raises:
        NotPlain: it is not of that form, or has aliases, merge keys, tags, more than one document,
            a key twice, nesting beyond :data:`MOST_DEPTH` or a number beyond :data:`MOST_DIGITS`.
    """
    if form == "JSON":
        return _from_json(text)
    return _from_yaml(text, tuples)


def read_record(path: str | os.PathLike[str]) -> Any:
    """The data of a JSON file that this package wrote, whatever has become of it since.

    Raises:
        ValueError: it cannot be read, or is not plain data.
    """
    try:
        return parse_plain(read_text(path, "record", MOST_RECORD_BYTES), "JSON")
    except UserError as error:
        raise ValueError(error.problem) from error


# --- JSON ----------------------------------------------------------------------------------------


def _from_json(text: str) -> Any:
    try:
        found = json.loads(
            text,
            object_pairs_hook=_each_once,
            parse_int=lambda digits: int(_short_number(digits)),
            parse_float=lambda digits: float(_short_number(digits)),
        )
    except RecursionError:
        raise _too_deep() from None
    except NotPlain:
        raise
    except ValueError as error:
        raise NotPlain(_one_line(error)) from None
    _refuse_depth(found)
    return found


def _each_once(pairs: list[tuple[str, Any]]) -> dict[str, Any]:
    found = dict(pairs)
    if len(found) < len(pairs):
        names = [name for name, _ in pairs]
        raise _twice(next(name for name in names if names.count(name) > 1))
    return found


def _refuse_depth(document: Any) -> None:
    level: list[Any] = [document]
    for _ in range(MOST_DEPTH + 1):
        level = [
            item
            for each in level
            if isinstance(each, (dict, list))
            for item in (each.values() if isinstance(each, dict) else each)
        ]
        if not level:
            return
    raise _too_deep()


# --- YAML ----------------------------------------------------------------------------------------

_Parser: Any = getattr(yaml, "CSafeLoader", yaml.SafeLoader)


class _Loader(_Parser):
    """What safe loading makes of plain data, each key once."""

    def construct_mapping(self, node: Any, deep: bool = False) -> Any:
        keys = [self.construct_object(key, deep=True) for key, _ in node.value]
        seen = set()
        for key, (key_node, _) in zip(keys, node.value, strict=True):
            try:
                known = key in seen
            except TypeError:
                raise NotPlain(f"a key is no plain word{_at(key_node)}") from None
            if known:
                raise _twice(key, _at(key_node))
            seen.add(key)
        return super().construct_mapping(node, deep=deep)

    def construct_scalar(self, node: Any) -> Any:
        if node.tag.endswith((":int", ":float")):
            _short_number(node.value, _at(node))
        return super().construct_scalar(node)


_Loader.add_constructor(
    _TUPLE, lambda loader, node: tuple(loader.construct_sequence(node, deep=True))
)


def _from_yaml(text: str, tuples: bool) -> Any:
    try:
        _refuse_tricks(yaml.parse(text, Loader=_Parser), tuples)
        return yaml.load(text, Loader=_Loader)
    except NotPlain:
        raise
    except yaml.YAMLError as error:
        raise NotPlain(_one_line(error)) from None
    except (ValueError, TypeError, LookupError, AttributeError, OverflowError) as error:
        # PyYAML lets through what Python says of a date or a number that there is not
        raise NotPlain(_one_line(error)) from None


def _refuse_tricks(events: Iterator[Any], tuples: bool) -> None:
    """Look at the file event by event, before anything is made of it."""
    depth = 0
    for event in events:
        if isinstance(event, yaml.AliasEvent):
            raise NotPlain(f"it has an alias (*{shortened(event.anchor, 40)}{_at(event)})")
        if isinstance(event, yaml.CollectionStartEvent):
            depth += 1
            if depth > MOST_DEPTH:
                raise _too_deep()
        elif isinstance(event, yaml.CollectionEndEvent):
            depth -= 1
        tag = getattr(event, "tag", None)
        if tag is not None and tag != "!" and not (tuples and tag == _TUPLE):
            raise NotPlain(f"it has a tag ({shortened(tag, 60)}{_at(event)})")
        plain = isinstance(event, yaml.ScalarEvent) and event.implicit[0]
        if plain and event.value == "<<":
            raise NotPlain(f"it has a merge key (<<{_at(event)})")


def _at(it: Any) -> str:
    mark = getattr(it, "start_mark", None)
    return "" if mark is None else f", line {mark.line + 1}"


# --- what is wrong -------------------------------------------------------------------------------


def _short_number(digits: str, where: str = "") -> str:
    if len(digits) > MOST_DIGITS:
        raise NotPlain(f"a number has {len(digits):,} digits{where}")
    return digits


def _twice(key: object, where: str = "") -> NotPlain:
    return NotPlain(f"the key {shortened(key, 60)} is given twice{where}")


def _too_deep() -> NotPlain:
    return NotPlain(f"it is nested more than {MOST_DEPTH} deep")


def _one_line(error: Exception) -> str:
    return shortened(" ".join(str(error).split()) or type(error).__name__, 300)


def _named(path: str | os.PathLike[str]) -> str:
    return shortened(os.fspath(path), 300)


def _kind(path: str | os.PathLike[str]) -> str | None:
    try:
        return _KINDS.get(stat.S_IFMT(os.stat(path).st_mode))
    except OSError:
        return None


def _other(path: str | os.PathLike[str], what: str, kind: str) -> UserError:
    remedy = "Give the path of a file in it." if kind == "a folder" else "Give a file on disk."
    return UserError(f"{_named(path)} cannot be read: it is {kind}, not a {what}.", remedy)


def _unreadable(path: str | os.PathLike[str], what: str, error: OSError | ValueError) -> UserError:
    number = error.errno if isinstance(error, OSError) else None
    if number == errno.ENOENT:
        return UserError(f"There is no {what} {_named(path)}.", "Check the path.")
    if number is None:
        reason = "its path has a character that no path can have"
    else:
        reason = _REASONS.get(number) or os.strerror(number)
    return UserError(f"{_named(path)} cannot be read: {reason}.", "Check the path.")
