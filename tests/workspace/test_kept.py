"""Documents under keys: whole or not at all, and never taken for another key's."""

from __future__ import annotations

import json
import signal
import subprocess
import sys
import time

import pytest

from sparsevit.errors import UserError
from sparsevit.workspace.kept import Kept

KEY = {"device": "cpu", "size": [672, 672]}


@pytest.fixture
def kept(tmp_path):
    return Kept(tmp_path / "kept")


def test_what_was_written_is_read_again(kept):
    path = kept.write(KEY, {"a": [1, 2.5, None]})
    assert path.parent == kept.folder
    assert kept.read(KEY) == {"a": [1, 2.5, None]}
    assert kept.read({"size": (672.0, 672), "device": "cpu"}) == {"a": [1, 2.5, None]}


def test_another_key_has_another_file(kept):
    kept.write(KEY, {"a": 1})
    assert kept.read({**KEY, "device": "cuda"}) is None
    kept.write({**KEY, "device": "cuda"}, {"a": 2})
    assert kept.read(KEY) == {"a": 1}


def test_the_last_one_written_counts(kept):
    kept.write(KEY, {"a": 1})
    kept.write(KEY, {"a": 2})
    assert kept.read(KEY) == {"a": 2}
    assert len(list(kept.folder.iterdir())) == 1


@pytest.mark.parametrize(
    "text", ["", "{", "[]", "null", '{"version": 1}', "[" * 100_000, "\x00", '{"version": 2}']
)
def test_a_damaged_file_counts_as_missing(kept, text):
    path = kept.write(KEY, {"a": 1})
    path.write_text(text, encoding="utf-8")
    assert kept.read(KEY) is None
    kept.write(KEY, {"a": 3})
    assert kept.read(KEY) == {"a": 3}


def test_bytes_that_are_no_text_count_as_missing(kept):
    kept.write(KEY, {"a": 1}).write_bytes(b"\xff\xfe\x00")
    assert kept.read(KEY) is None


def test_a_file_under_another_keys_name_is_not_taken(kept):
    other = {**KEY, "device": "cuda"}
    kept.write(KEY, {"a": 1}).rename(kept.path(other))
    assert kept.read(other) is None


@pytest.mark.parametrize("change", [{"version": 2}, {"key": {"device": "mps"}}, {"document": [1]}])
def test_content_that_does_not_fit_counts_as_missing(kept, change):
    path = kept.write(KEY, {"a": 1})
    path.write_text(json.dumps({**json.loads(path.read_text(encoding="utf-8")), **change}))
    assert kept.read(KEY) is None


def test_a_folder_that_cannot_be_made(tmp_path):
    (tmp_path / "file").write_text("")
    with pytest.raises(UserError, match="cannot be written"):
        Kept(tmp_path / "file" / "kept").write(KEY, {})


def test_killed_while_writing_it_is_the_old_or_the_new(kept):
    """A writer that is killed again and again: what is read is always one whole document."""
    writes = (
        "import sys\nfrom sparsevit.workspace.kept import Kept\n"
        f"kept = Kept({str(kept.folder)!r})\n"
        "for number in range(10**9):\n"
        f"    kept.write({KEY!r}, {{'number': number, 'again': [number] * 5000}})\n"
    )
    for attempt in range(5):
        process = subprocess.Popen([sys.executable, "-c", writes])
        try:
            give_up = time.monotonic() + 60
            while not kept.path(KEY).exists():
                assert process.poll() is None
                assert time.monotonic() < give_up
                time.sleep(0.01)
            time.sleep(0.03 * (attempt + 1))
        finally:
            process.send_signal(signal.SIGKILL)
            process.wait()
        found = kept.read(KEY)
        assert found is not None
        assert found["again"] == [found["number"]] * 5000
    kept.write(KEY, {"a": 1})
    assert [path.name for path in kept.folder.iterdir()] == [kept.path(KEY).name]
