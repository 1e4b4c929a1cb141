"""Shared set-up: quiet, small and repeatable."""

from __future__ import annotations

import atexit
import os
import shutil
import signal
import tempfile
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pytest
import tiny
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


@pytest.fixture(autouse=True)
def _no_workspace_of_the_user(monkeypatch):
    monkeypatch.delenv("SPARSEVIT_WORKSPACE", raising=False)


@dataclass(frozen=True)
class Finished:
    """A workspace in which every phase ran once, and what the commands said."""

    path: Path
    documents: dict[str, Any]


@pytest.fixture(scope="session")
def tiny_config(tmp_path_factory):
    """Path of a config that trains in a second."""
    path = tmp_path_factory.mktemp("configs") / "tiny.py"
    path.write_text(tiny.CONFIG, encoding="utf-8")
    return path


@pytest.fixture(scope="session")
def finished(tmp_path_factory, tiny_config):
    """Every phase on the tiny config, by the commands, in this process; nothing may change it."""
    path = tmp_path_factory.mktemp("finished") / "workspace"
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
    return Finished(path, documents)


@pytest.fixture
def workspace(finished, tmp_path):
    """A copy of the finished workspace."""
    return Path(shutil.copytree(finished.path, tmp_path / "workspace"))


@pytest.fixture(scope="session")
def pretrained_only(finished, tmp_path_factory):
    """A workspace in which pretrain alone ran; nothing may change it."""
    path = tmp_path_factory.mktemp("pretrained") / "workspace"
    checkpoint = Path(finished.documents["pretrain"]["checkpoint"])
    config = Path(finished.documents["pretrain"]["config"])
    done = tiny.run(
        "pretrain",
        config,
        checkpoint,
        "--workspace",
        path,
        "--json",
        "--set",
        "train_cfg.max_iters=1",
    )
    assert done.code == 0, done.err
    return path


@pytest.fixture
def pretrained(pretrained_only, tmp_path):
    """A copy of the workspace in which pretrain alone ran."""
    return Path(shutil.copytree(pretrained_only, tmp_path / "pretrained"))
