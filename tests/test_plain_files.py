"""A small file that a user gives is data, whatever is in it."""

from __future__ import annotations

import os

import pytest

from sparsevit.errors import UserError, shortened
from sparsevit.plain_files import MOST_BYTES, NotPlain, expanded, parse_plain, read_plain


def bomb() -> str:
    """A kilobyte that stands for nine to the power of twenty words."""
    lines = ["a0: &a0 [x, x, x, x, x, x, x, x, x]"]
    for step in range(1, 20):
        lines.append(f"a{step}: &a{step} [{', '.join([f'*a{step - 1}'] * 9)}]")
    return "\n".join(lines)


def test_plain_data_is_read_alike_in_both_forms():
    found = {"a": [1, 0.5, True, None, "x"], "b": {"c": -1e-3}}
    assert parse_plain("a: [1, 0.5, true, null, x]\nb: {c: -1.0e-3}\n") == found
    assert parse_plain('{"a": [1, 0.5, true, null, "x"], "b": {"c": -1e-3}}', "JSON") == found
    assert parse_plain("a: !!python/tuple [1, 2]", tuples=True) == {"a": (1, 2)}


@pytest.mark.parametrize(
    ("text", "says"),
    [
        (bomb(), "has an alias"),
        ("&a [*a]", "has an alias"),
        ("a: {x: 1}\nb:\n  <<: {x: 1}", "has a merge key"),
        ("a: !!python/object/apply:os.system [true]", "has a tag"),
        ("a: !!python/tuple [1]", "has a tag"),
        ("a: !!int x", "has a tag"),
        ("[" * 2000 + "]" * 2000, "nested more than"),
        ("{a: " * 100 + "}" * 100, "nested more than"),
        ("a: 1\nb: 2\na: 3", "the key a is given twice, line 3"),
        ("{1: a, 1.0: b}", "given twice"),
        ("? [a]\n: 1", "a key is no plain word"),
        ("a: " + "9" * 5000, "a number has 5,000 digits"),
        ("a: " + ":".join(["1"] * 5000), "a number has"),
        ("a: 2001-99-99", "month must be"),
        ("a: 1\n---\nb: 2", "single document"),
        ("a: [", "line 2"),
        ("!" + "x" * 100_000 + " a", "has a tag"),
    ],
    ids=lambda value: value[:12] if isinstance(value, str) else None,
)
def test_yaml_that_is_more_than_data_is_refused_in_few_words(text, says):
    with pytest.raises(NotPlain, match=says) as caught:
        parse_plain(text)
    assert len(str(caught.value)) < 400


@pytest.mark.parametrize(
    ("text", "says"),
    [
        ("[" * 100_000, "nested more than"),
        ("[" * 100 + "]" * 100, "nested more than"),
        ('{"a": 1, "a": 2}', "the key a is given twice"),
        ('{"a": ' + "9" * 5000 + "}", "a number has 5,000 digits"),
        ('{"a": 0.' + "9" * 5000 + "}", "a number has"),
        ("{}{}", "Extra data"),
        ("", "Expecting value"),
    ],
    ids=lambda value: value[:12] if isinstance(value, str) else None,
)
def test_json_that_is_more_than_data_is_refused_in_few_words(text, says):
    with pytest.raises(NotPlain, match=says) as caught:
        parse_plain(text, "JSON")
    assert len(str(caught.value)) < 400


@pytest.mark.parametrize(
    ("content", "says"),
    [
        (b"#" * (MOST_BYTES + 1), "too large"),
        ("a: 1".encode("utf-16"), "UTF-16"),
        ("a: \xe9".encode("latin-1"), "0xe9"),
        (b"a: 1\0", "null bytes"),
    ],
)
def test_a_file_that_is_no_small_text_is_refused(tmp_path, content, says):
    path = tmp_path / "a.yaml"
    path.write_bytes(content)
    with pytest.raises(UserError, match=says):
        read_plain(path)


def test_a_byte_order_mark_is_no_part_of_the_text(tmp_path):
    for name, text in (("a.yaml", "a: 1"), ("a.json", '{"a": 1}')):
        path = tmp_path / name
        path.write_text(text, encoding="utf-8-sig")
        assert read_plain(path) == {"a": 1}


def odd(folder):
    """Paths that are no files, and what is said of them."""
    (folder / "file").write_text("")
    os.mkfifo(folder / "pipe")
    (folder / "loop").symlink_to("loop")
    (folder / "zero").symlink_to("/dev/zero")
    return {
        folder: "is a folder",
        folder / "pipe": "is a pipe",
        folder / "zero": "is a device",
        folder / "loop": "leads back to itself",
        folder / "file" / "a.yaml": "is a file, not a folder",
        folder / "a\0b": "no path can have",
        folder / ("a" * 300): "name is too long",
        folder / "none": "There is no checkpoint",
        expanded("~no-such-user/a.yaml"): "There is no checkpoint ~no-such-user",
    }


def test_what_is_no_file_is_named_and_nothing_waits_for_it(tmp_path):
    for path, says in odd(tmp_path).items():
        with pytest.raises(UserError, match=says) as caught:
            read_plain(path, "checkpoint")
        assert caught.value.remedy


def test_what_is_quoted_keeps_both_its_ends():
    assert shortened("word", 10) == "word"
    assert shortened("a" * 50 + "z" * 50, 21) == f"{'a' * 11} ... {'z' * 5}"
    assert len(shortened(list(range(10_000)))) == 80
