"""Opening a workspace, and what phases look up in it."""

from __future__ import annotations

import json
import os
import subprocess
import sys

import pytest

from sparsevit.errors import UserError
from sparsevit.workspace import FORMAT_VERSION, Resolved, Workspace, record


@pytest.fixture
def ws(tmp_path):
    return Workspace.open(tmp_path / "ws")


def make(ws, phase, **files):
    with ws.run(phase, {}, force=True) as run:
        for key, name in files.items():
            (run.directory / name).write_text(key)
            run.update(outputs={key: name})
    return run


def test_no_path_means_the_environment_then_work_dirs(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    monkeypatch.delenv("SPARSEVIT_WORKSPACE", raising=False)
    assert Workspace.open().path == tmp_path / "work_dirs"
    monkeypatch.setenv("SPARSEVIT_WORKSPACE", "elsewhere")
    assert Workspace.open().path == tmp_path / "elsewhere"
    assert Workspace.open("given").path == tmp_path / "given"


def test_a_workspace_is_made_with_its_parents_by_its_first_run(tmp_path):
    ws = Workspace.open(tmp_path / "a" / "b")
    assert not (tmp_path / "a").exists()
    with ws.run("pretrain", {}):
        assert ws.path.is_dir()


def test_a_name_that_no_record_can_hold_is_refused(tmp_path):
    with pytest.raises(UserError, match="is not UTF-8"):
        Workspace.open(tmp_path / "\udcff")
    assert list(tmp_path.iterdir()) == []


def test_one_that_must_be_there_is_not_made(tmp_path):
    with pytest.raises(UserError, match="no workspace"):
        Workspace.open(tmp_path / "a", create=False)
    assert not (tmp_path / "a").exists()


def test_readonly_makes_nothing_and_sees_an_empty_one(tmp_path):
    ws = Workspace.open(tmp_path / "a", readonly=True)
    assert ws.status_rows() == []
    assert ws.last("pretrain") is None
    assert ws.writer() is None
    assert not (tmp_path / "a").exists()
    with pytest.raises(RuntimeError, match="readonly"):
        ws.run("adapt", {})


@pytest.mark.parametrize("inside", ["", "below", "below/deeper"])
@pytest.mark.parametrize("readonly", [False, True])
def test_a_file_in_the_way_is_named(tmp_path, inside, readonly):
    (tmp_path / "file").write_text("mine")
    with pytest.raises(UserError, match=r"is not a directory: .*/file is a file") as caught:
        Workspace.open(tmp_path / "file" / inside, readonly=readonly)
    assert "--workspace" in caught.value.remedy
    assert (tmp_path / "file").read_text() == "mine"


def test_a_directory_that_cannot_be_written_is_refused(tmp_path, monkeypatch):
    refuse = os.access
    monkeypatch.setattr(os, "access", lambda path, mode: refuse(path, mode) and not mode & os.W_OK)
    with pytest.raises(UserError, match="cannot be written"):
        Workspace.open(tmp_path)
    assert list(tmp_path.iterdir()) == []
    assert Workspace.open(tmp_path, readonly=True).status_rows() == []


def test_a_directory_without_write_permission_is_refused(tmp_path):
    tmp_path.chmod(0o555)
    try:
        if os.access(tmp_path, os.W_OK):
            return  # root may write anywhere
        with pytest.raises(UserError, match="cannot be written"):
            Workspace.open(tmp_path)
    finally:
        tmp_path.chmod(0o755)


def test_a_full_disk_leaves_the_old_record(ws, monkeypatch):
    make(ws, "pretrain")
    before = (ws.path / "workspace.json").read_bytes()

    def full(descriptor):
        raise OSError(28, "No space left on device")

    monkeypatch.setattr(os, "fsync", full)
    with pytest.raises(UserError, match="No space left"), ws.run("adapt", {}):
        pass
    assert (ws.path / "workspace.json").read_bytes() == before
    assert not list(ws.path.glob(".*.tmp"))
    assert ws.writer() is None


RUN = {"id": "run-001", "phase": "adapt", "status": "finished", "started": "2026-01-01T00:00:00"}


@pytest.mark.parametrize(
    "text",
    [
        b"",
        b"{",
        b"\xff\xfe",
        b"[]",
        b"null",
        b'{"phases": {}}',
        b'{"version": "1", "phases": {}}',
        b'{"version": 0, "phases": {}}',
        b'{"version": 1}',
        b'{"version": 1, "phases": []}',
        b'{"version": 1, "phases": {"adapt": []}}',
        b'{"version": 1, "phases": {"adapt": {"runs": ["run-001"]}}}',
        b'{"version": 1, "phases": {"adapt": {"runs": [{"id": "run-001"}]}}}',
        json.dumps({"version": 1, "phases": {"search": {"runs": [RUN]}}}).encode(),
        json.dumps({"version": 1, "phases": {"adapt": {"runs": [{**RUN, "id": 1}]}}}).encode(),
        json.dumps(
            {"version": 1, "phases": {"adapt": {"runs": [{**RUN, "status": "odd"}]}}}
        ).encode(),
        json.dumps(
            {"version": 1, "phases": {"adapt": {"runs": [{**RUN, "outputs": {"a": 1}}]}}}
        ).encode(),
    ],
)
@pytest.mark.parametrize("readonly", [False, True])
def test_a_broken_record_is_reported_and_left_alone(tmp_path, text, readonly):
    path = tmp_path / "workspace.json"
    path.write_bytes(text)
    with pytest.raises(UserError, match="not a valid record") as caught:
        Workspace.open(tmp_path, readonly=readonly)
    assert "mv workspace.json" in caught.value.remedy
    assert path.read_bytes() == text


def test_a_record_of_a_newer_version_is_left_alone(tmp_path):
    path = tmp_path / "workspace.json"
    text = json.dumps({"version": FORMAT_VERSION + 1, "anything": "else"})
    path.write_text(text)
    with pytest.raises(UserError, match=f"format version {FORMAT_VERSION + 1}") as caught:
        Workspace.open(tmp_path)
    assert "Update sparsevit" in caught.value.remedy
    assert path.read_text() == text


def test_an_older_record_is_migrated_step_by_step_and_written_with_the_next_run(
    tmp_path, monkeypatch
):
    monkeypatch.setattr(record, "FORMAT_VERSION", 3)
    monkeypatch.setitem(record.MIGRATIONS, 1, lambda old: {**old, "phases": {"adapt": old["runs"]}})
    monkeypatch.setitem(
        record.MIGRATIONS,
        2,
        lambda old: {**old, "phases": {k: {"runs": v} for k, v in old["phases"].items()}},
    )
    path = tmp_path / "workspace.json"
    text = json.dumps({"version": 1, "runs": [RUN]})
    path.write_text(text)
    ws = Workspace.open(tmp_path)
    assert ws.last("adapt").id == "run-001"
    assert path.read_text() == text
    make(ws, "search")
    assert json.loads(path.read_text())["version"] == 3


def test_a_running_record_whose_lock_is_free_is_interrupted(ws):
    document = {
        "version": 1,
        "phases": {"adapt": {"runs": [{**RUN, "status": "running", "pid": os.getpid()}]}},
    }
    ws.path.mkdir()
    (ws.path / "workspace.json").write_text(json.dumps(document))
    assert ws.last("adapt", finished=False).status == "interrupted"
    assert json.loads((ws.path / "workspace.json").read_text()) == document
    make(ws, "search")
    assert ws.history("adapt")[0].status == "interrupted"
    assert '"running"' not in (ws.path / "workspace.json").read_text()


def test_rows_come_in_the_order_of_their_start(ws):
    for phase in ("search", "adapt", "search"):
        make(ws, phase)
    assert [run.name for run in ws.status_rows()] == [
        "search run-001",
        "adapt run-001",
        "search run-002",
    ]


def test_find_gives_the_finished_run_with_these_inputs(ws):
    with ws.run("adapt", {"seed": 0}):
        pass
    with ws.run("adapt", {"seed": 1}):
        pass
    assert ws.find("adapt", {"seed": 0}).id == "run-001"
    assert ws.find("adapt", {"seed": 2}) is None


def test_a_checkpoint_comes_from_the_first_phase_that_has_one(ws):
    assert ws.resolve_checkpoint(None, ["adapt", "pretrain"]) is None
    make(ws, "pretrain", checkpoint="a.pth")
    make(ws, "adapt", config="a.py")
    assert ws.resolve_checkpoint(None, ["adapt", "pretrain"]) == Resolved(
        ws.path / "pretrain/run-001/a.pth", "pretrain run-001"
    )
    make(ws, "adapt", checkpoint="b.pth")
    assert ws.resolve_checkpoint(None, ["adapt", "pretrain"]) == Resolved(
        ws.path / "adapt/run-002/b.pth", "adapt run-002"
    )


def test_a_run_that_failed_offers_nothing(ws):
    def make_and_fail():
        with ws.run("pretrain", {}) as run:
            (run.directory / "a.pth").touch()
            run.update(outputs={"checkpoint": "a.pth"})
            raise RuntimeError("boom")

    with pytest.raises(RuntimeError, match="boom"):
        make_and_fail()
    assert ws.resolve_checkpoint(None, ["pretrain"]) is None


def test_a_given_checkpoint_wins(ws, tmp_path, monkeypatch):
    make(ws, "pretrain", checkpoint="a.pth")
    (tmp_path / "mine.pth").touch()
    monkeypatch.chdir(tmp_path)
    assert ws.resolve_checkpoint("mine.pth", ["pretrain"]) == Resolved(
        tmp_path / "mine.pth", "given"
    )


@pytest.mark.parametrize(
    ("given", "remedy"), [("gone.pth", "Check the path"), ("https://a.b/c.pth", "Download it")]
)
def test_a_given_checkpoint_that_is_no_file_is_refused(ws, given, remedy):
    with pytest.raises(UserError, match=given) as caught:
        ws.resolve_checkpoint(given, ["pretrain"])
    assert remedy in caught.value.remedy


def test_a_recorded_checkpoint_that_is_gone_is_reported(ws):
    run = make(ws, "pretrain", checkpoint="a.pth")
    (run.directory / "a.pth").unlink()
    with pytest.raises(UserError, match=r"pretrain run-001, .*a\.pth, no longer exists") as caught:
        ws.resolve_checkpoint(None, ["pretrain"])
    assert "sparsevit pretrain --force" in caught.value.remedy


def test_a_config_is_given_by_path_or_name_or_comes_from_a_run(ws):
    name = "sparsevit::sparsevit/mask_rcnn_sparsevit.py"
    assert str(ws.resolve_config(name, []).path) == name
    assert ws.resolve_config(None, ["pretrain"]) is None
    make(ws, "pretrain", config="c.py")
    assert ws.resolve_config(None, ["pretrain"]) == Resolved(
        ws.path / "pretrain/run-001/c.py", "pretrain run-001"
    )


def test_the_best_configuration_is_the_last_finished_searchs_else_the_one_at_the_top(ws):
    assert ws.best_configuration() is None
    ws.path.mkdir()
    (ws.path / "best.yaml").touch()
    assert ws.best_configuration() == ws.path / "best.yaml"
    make(ws, "search", best="mine.yaml")
    assert ws.best_configuration() == ws.path / "search/run-001/mine.yaml"
    (ws.path / "search/run-001/mine.yaml").unlink()
    assert ws.best_configuration() == ws.path / "best.yaml"


def test_the_lock_file_of_a_run_that_ended_does_not_count(ws):
    make(ws, "adapt")
    assert ws.writer() is None
    assert not (ws.path / "workspace.lock.json").exists()


def test_torch_is_not_imported():
    code = (
        "import sys; from sparsevit.workspace import Workspace; import sparsevit.phases.status, "
        "sparsevit.report.status; assert not {'torch', 'mmengine', 'numpy'} & set(sys.modules)"
    )
    subprocess.run([sys.executable, "-c", code], check=True)


def test_a_record_that_is_no_regular_file_is_not_read(tmp_path):
    (tmp_path / "workspace.json").symlink_to("/dev/zero")
    with pytest.raises(UserError, match="not a regular file"):
        Workspace.open(tmp_path).status_rows()
