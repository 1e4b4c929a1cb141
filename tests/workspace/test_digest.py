"""Which inputs are the same."""

from __future__ import annotations

import json
import math
import os
import random
from dataclasses import dataclass
from enum import Enum
from pathlib import Path

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from sparsevit.errors import UserError
from sparsevit.workspace import Workspace, digest, file_digest, inputs_digest

LEAVES = st.none() | st.booleans() | st.integers(-(10**9), 10**9) | st.floats() | st.text()
VALUES = st.recursive(
    LEAVES, lambda v: st.lists(v, max_size=3) | st.dictionaries(st.text(), v, max_size=3)
)
INPUTS = st.dictionaries(st.text(), VALUES, max_size=4)


@given(INPUTS, st.randoms(use_true_random=False))
def test_the_order_of_names_does_not_count(inputs, rng: random.Random):
    names = list(inputs)
    rng.shuffle(names)
    assert inputs_digest({name: inputs[name] for name in names}) == inputs_digest(inputs)


@given(INPUTS)
def test_inputs_read_back_from_a_record_are_the_same(inputs):
    stored = json.loads(json.dumps(digest.to_json(inputs), allow_nan=False))
    assert inputs_digest(stored) == inputs_digest(inputs)
    assert digest.differing(inputs, stored) == []


@given(INPUTS, INPUTS)
def test_inputs_are_the_same_exactly_where_nothing_differs(old, new):
    assert (inputs_digest(old) == inputs_digest(new)) == (digest.differing(old, new) == [])


@given(INPUTS, st.text(), VALUES)
def test_an_ignored_name_does_not_count(inputs, name, value):
    other = {**inputs, name: value}
    assert inputs_digest(other, [name]) == inputs_digest(inputs, [name])


def test_a_truth_is_no_number_and_a_number_no_text():
    kinds = [{"a": value} for value in (True, 1, "1", None, [1], {"1": 1}, {})]
    assert len({inputs_digest(kind) for kind in kinds}) == len(kinds)
    assert inputs_digest({"a": 1}) == inputs_digest({"a": 1.0})


class Mode(str, Enum):
    fast = "fast"


@dataclass
class Options:
    path: Path
    size: tuple[int, int]


def test_what_phases_hold_has_a_json_form():
    value = {
        "mode": Mode.fast,
        "options": Options(Path("a/b"), (2, 3)),
        "set": {3, 1, 2},
        "scalar": np.float32(0.5),
        "array": np.arange(2),
        "lost": [math.nan, -math.inf],
        1: True,
    }
    assert digest.to_json(value) == {
        "mode": "fast",
        "options": {"path": "a/b", "size": [2, 3]},
        "set": [1, 2, 3],
        "scalar": 0.5,
        "array": [0, 1],
        "lost": ["nan", "-inf"],
        "1": True,
    }


def test_what_has_no_json_form_is_named():
    with pytest.raises(TypeError, match=r"a\.b\[1\] is a object"):
        inputs_digest({"a": {"b": [1, object()]}})


def test_a_file_counts_by_its_content_wherever_it_lies(tmp_path):
    ws = Workspace.open(tmp_path / "ws")
    first, second, third = (tmp_path / name for name in "abc")
    first.write_text("same")
    second.write_text("same")
    third.write_text("other")
    one, two, three = ({"checkpoint": ws.reference(path)} for path in (first, second, third))
    assert one != two
    assert inputs_digest(one) == inputs_digest(two) != inputs_digest(three)


def test_a_reference_within_the_workspace_moves_with_it(tmp_path):
    ws = Workspace.open(tmp_path)
    (tmp_path / "a.pth").touch()
    assert ws.reference(tmp_path / "a.pth")["path"] == "a.pth"


def test_a_file_digest_is_its_sha256(tmp_path):
    (tmp_path / "a").write_bytes(b"abc")
    assert file_digest(tmp_path / "a") == (
        "sha256:ba7816bf8f01cfea414140de5dae2223b00361a396177a9cb410ff61f20015ad"
    )


@pytest.mark.parametrize("name", ["gone", "."])
def test_a_file_that_cannot_be_read_is_the_users_mistake(tmp_path, name):
    with pytest.raises(UserError, match="cannot be read"):
        file_digest(tmp_path / name)
    with pytest.raises(UserError, match="cannot be read"):
        Workspace.open(tmp_path).file_digest(tmp_path / name)


def settle(path: Path, age: float = 100.0) -> None:
    moment = path.stat().st_mtime - age
    os.utime(path, (moment, moment))


def test_a_file_is_read_again_only_when_it_changed(tmp_path, monkeypatch):
    path = tmp_path / "a.pth"
    path.write_text("one")
    settle(path)
    ws = Workspace.open(tmp_path / "ws")
    first = ws.file_digest(path)
    with ws.run("adapt", {}):
        pass

    def read(path):
        raise AssertionError("read again")

    with monkeypatch.context() as patch:
        patch.setattr(digest, "file_digest", read)
        assert Workspace.open(ws.path).file_digest(path) == first
    path.write_text("two")
    assert Workspace.open(ws.path).file_digest(path) != first


def test_a_file_that_was_just_written_is_not_trusted_to_keep_its_time(tmp_path):
    path = tmp_path / "a.pth"
    path.write_text("one")
    stat = path.stat()
    ws = Workspace.open(tmp_path / "ws")
    first = ws.file_digest(path)
    path.write_text("two")
    os.utime(path, ns=(stat.st_atime_ns, stat.st_mtime_ns))
    assert ws.file_digest(path) != first


def test_digests_of_files_that_are_gone_leave_the_record(tmp_path):
    path = tmp_path / "a.pth"
    path.write_text("one")
    settle(path)
    ws = Workspace.open(tmp_path / "ws")
    ws.file_digest(path)
    for expected in ([str(path)], []):
        with ws.run("adapt", {}, force=True):
            pass
        assert list(json.loads((ws.path / "workspace.json").read_text())["digests"]) == expected
        path.unlink(missing_ok=True)
