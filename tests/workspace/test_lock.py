"""One writer, and what is said of it."""

from __future__ import annotations

import json
import os
import subprocess
import sys
import time

import pytest
from filelock import FileLock

from sparsevit.errors import UserError
from sparsevit.workspace import lock
from sparsevit.workspace.lock import WriterLock, is_locked, read_holder

DEAD = 2**22 + 1


def test_who_holds_it_is_written_down_and_removed(tmp_path):
    writer = WriterLock(tmp_path)
    writer.acquire("adapt")
    holder = read_holder(tmp_path)
    assert (holder.pid, holder.phase) == (os.getpid(), "adapt")
    assert is_locked(tmp_path)
    writer.release()
    assert read_holder(tmp_path) is None
    assert not is_locked(tmp_path)


def test_the_thread_that_has_it_may_take_it_again(tmp_path):
    outer, inner = WriterLock(tmp_path), WriterLock(tmp_path)
    outer.acquire("demo")
    inner.acquire("adapt")
    inner.release()
    assert is_locked(tmp_path)
    outer.release()
    assert not is_locked(tmp_path)


def test_ones_own_lock_is_not_tried(tmp_path, monkeypatch):
    writer = WriterLock(tmp_path)
    writer.acquire("adapt")
    with monkeypatch.context() as patch:
        patch.setattr(lock, "FileLock", None)
        assert is_locked(tmp_path)
    writer.release()


def test_looking_whether_it_is_free_makes_no_file(tmp_path):
    assert not is_locked(tmp_path)
    assert list(tmp_path.iterdir()) == []


def test_a_look_at_the_lock_does_not_refuse_a_writer(tmp_path):
    looker = FileLock(str(tmp_path / lock.LOCK_NAME))
    looker.acquire()
    code = (
        "import sys; from pathlib import Path; from sparsevit.workspace.lock import WriterLock; "
        "print('go', flush=True); WriterLock(Path(sys.argv[1])).acquire('adapt')"
    )
    writer = subprocess.Popen(
        [sys.executable, "-c", code, str(tmp_path)], stdout=subprocess.PIPE, text=True
    )
    writer.stdout.readline()
    time.sleep(0.1)
    looker.release()
    writer.communicate()
    assert writer.returncode == 0


@pytest.mark.parametrize("text", [None, "", "[]", '{"pid": "x"}', '{"pid": 1, "odd": 2}'])
def test_a_holder_that_cannot_be_read_is_another_process(tmp_path, monkeypatch, text):
    monkeypatch.setattr(lock, "_GRACE_SECONDS", 0.0)
    if text is not None:
        (tmp_path / lock.HOLDER_NAME).write_text(text)
    other = FileLock(str(tmp_path / lock.LOCK_NAME))
    with other, pytest.raises(UserError, match="in use by another process"):
        WriterLock(tmp_path).acquire("adapt")


def test_orphans_of_a_killed_holder_are_waited_for_and_then_named(tmp_path, monkeypatch):
    monkeypatch.setattr(lock, "_GRACE_SECONDS", 0.0)
    monkeypatch.setattr(lock, "_ORPHANS_SECONDS", 0.1)
    holder = {"pid": DEAD, "host": lock.provenance.hostname(), "phase": "adapt"}
    (tmp_path / lock.HOLDER_NAME).write_text(json.dumps(holder))
    other = FileLock(str(tmp_path / lock.LOCK_NAME))
    with other, pytest.raises(UserError, match=f"a child of process {DEAD}") as caught:
        WriterLock(tmp_path).acquire("adapt")
    assert "fuser" in caught.value.remedy


def test_the_holder_on_another_machine_is_never_taken_for_dead(tmp_path, monkeypatch):
    monkeypatch.setattr(lock, "_GRACE_SECONDS", 0.0)
    holder = {"pid": DEAD, "host": "elsewhere", "phase": "adapt"}
    (tmp_path / lock.HOLDER_NAME).write_text(json.dumps(holder))
    other = FileLock(str(tmp_path / lock.LOCK_NAME))
    with other, pytest.raises(UserError, match=f"process {DEAD} on elsewhere: adapt"):
        WriterLock(tmp_path).acquire("adapt")


def test_a_lock_that_may_not_be_tried_is_believed(tmp_path, monkeypatch):
    (tmp_path / lock.LOCK_NAME).touch()

    def refuse(self, **_):
        raise PermissionError

    monkeypatch.setattr(FileLock, "acquire", refuse)
    assert not is_locked(tmp_path)
    holder = {"pid": os.getpid(), "host": lock.provenance.hostname()}
    (tmp_path / lock.HOLDER_NAME).write_text(json.dumps(holder))
    assert is_locked(tmp_path)


def test_a_file_system_without_locks_is_named(tmp_path, monkeypatch):
    def refuse(self, **_):
        raise NotImplementedError

    monkeypatch.setattr(FileLock, "acquire", refuse)
    with pytest.raises(UserError, match="does not support file locks"):
        WriterLock(tmp_path).acquire("adapt")
