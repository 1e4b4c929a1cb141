"""Shared set-up: quiet, small and repeatable."""

from __future__ import annotations

import atexit
import gc
import json
import os
import shutil
import signal
import sys
import tempfile
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pytest
import tiny
from filelock import FileLock
from hypothesis import settings

os.environ.setdefault("OMP_NUM_THREADS", "1")
os.environ.setdefault("GOMP_SPINCOUNT", "10000")

# native code of this run alone, in one folder for the processes that xdist starts too; modules ask
# for it when they are collected, before any fixture
os.environ.pop("SPARSEVIT_NATIVE", None)
if "SPARSEVIT_CACHE" not in os.environ:
    os.environ["SPARSEVIT_CACHE"] = tempfile.mkdtemp(prefix="sparsevit-native-")
    atexit.register(shutil.rmtree, os.environ["SPARSEVIT_CACHE"], ignore_errors=True)

# what runs in the background ignores Ctrl-C, and so would the commands that tests interrupt
if signal.getsignal(signal.SIGINT) is signal.SIG_IGN:
    signal.signal(signal.SIGINT, signal.default_int_handler)

# a busy machine must not fail a property
settings.register_profile("no deadline", deadline=None)
settings.load_profile("no deadline")


def pytest_collection_finish():
    """What was imported stays: the collections that mmengine asks for need not go through it."""
    gc.collect()
    gc.freeze()


@pytest.fixture(autouse=True)
def _no_workspace_of_the_user(monkeypatch):
    monkeypatch.delenv("SPARSEVIT_WORKSPACE", raising=False)


@pytest.fixture(autouse=True)
def _no_scope_of_another_test():
    """mmengine looks names up in the library that a process named last."""
    mmengine = sys.modules.get("mmengine.registry")
    if mmengine is not None:
        mmengine.DefaultScope._instance_dict.clear()


@pytest.fixture(scope="module", autouse=True)
def brief_timing():
    """Timings are short; where they are what is tested, a module has a fixture of this name."""
    with tiny.timed_briefly():
        yield


@dataclass(frozen=True)
class Finished:
    """A workspace in which every phase ran once, and what the commands said."""

    path: Path
    documents: dict[str, Any]


@pytest.fixture(scope="session")
def shared(tmp_path_factory):
    """A folder that the processes of xdist have in common."""
    own = tmp_path_factory.getbasetemp()
    folder = (own.parent if "PYTEST_XDIST_WORKER" in os.environ else own) / "shared"
    folder.mkdir(exist_ok=True)
    return folder


@pytest.fixture(scope="session")
def tiny_config(shared):
    """Path of a config that trains in a second."""
    path = shared / "tiny.py"
    with FileLock(shared / "tiny.lock"):
        if not path.exists():
            path.write_text(tiny.CONFIG, encoding="utf-8")
    return path


@pytest.fixture(scope="session")
def finished(shared, tiny_config):
    """Every phase on the tiny config, by the commands, in one process; nothing may change it."""
    path, said = shared / "finished", shared / "finished.json"
    with FileLock(shared / "finished.lock"), tiny.timed_briefly():
        if not said.exists():
            documents = {}
            for words in (
                ["pretrain", tiny_config],
                ["adapt"],
                ["search", *tiny.SEARCH],
                ["finetune"],
                ["evaluate"],
            ):
                done = tiny.run(*words, "--workspace", path, "--json")
                assert done.code == 0, done.err
                documents[words[0]] = done.document
            said.write_text(json.dumps(documents), encoding="utf-8")
    return Finished(path, json.loads(said.read_text(encoding="utf-8")))


@pytest.fixture
def workspace(finished, tmp_path):
    """A copy of the finished workspace."""
    return Path(shutil.copytree(finished.path, tmp_path / "workspace"))


@pytest.fixture
def hostile(tmp_path, monkeypatch):
    """A working directory with files named as libraries are; one that is run makes ``was-run``."""
    folder = tmp_path / "hostile"
    folder.mkdir()
    names = "yaml optuna torch json runpy random numpy mmengine sqlalchemy typer rich sitecustomize"
    for name in names.split():
        planted = "open('was-run', 'w').close()\nraise SystemExit('planted')\n"
        (folder / f"{name}.py").write_text(planted)
    monkeypatch.chdir(folder)
    return folder


@pytest.fixture(scope="session")
def pretrained_only(shared, finished):
    """A workspace in which pretrain alone ran; nothing may change it."""
    path, made = shared / "pretrained", shared / "pretrained.made"
    begun = finished.documents["pretrain"]
    words = ("pretrain", begun["config"], begun["checkpoint"], "--set", "train_cfg.max_iters=1")
    with FileLock(shared / "pretrained.lock"):
        if not made.exists():
            done = tiny.run(*words, "--workspace", path, "--json")
            assert done.code == 0, done.err
            made.touch()
    return path


@pytest.fixture
def pretrained(pretrained_only, tmp_path):
    """A copy of the workspace in which pretrain alone ran."""
    return Path(shutil.copytree(pretrained_only, tmp_path / "pretrained"))
