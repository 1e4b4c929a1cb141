"""Nothing in a checkpoint file is ever run, and a file that is none is named as what it is."""

from __future__ import annotations

import os
import pickle
import zipfile
from collections import OrderedDict

import numpy as np
import pytest
import torch
from mmengine.config import ConfigDict
from mmengine.hooks import Hook
from mmengine.logging import HistoryBuffer
from mmengine.model import BaseModel
from mmengine.runner import Runner
from mmengine.runner.checkpoint import CheckpointLoader, _load_checkpoint
from torch import nn

from sparsevit.engine.safe_load import load_file, make_loading_safe
from sparsevit.errors import UserError


class Exploit:
    """Runs a command when it is unpickled the ordinary way."""

    def __init__(self, command):
        self.command = command

    def __reduce__(self):
        return os.system, (self.command,)


@pytest.fixture
def loaders():
    """mmengine's own loaders, put back after the test."""
    before = OrderedDict(CheckpointLoader._schemes)
    yield
    CheckpointLoader._schemes = before


def write(folder, content, name="file.pth"):
    path = folder / name
    path.write_bytes(content)
    return path


def refusal(path):
    with pytest.raises(UserError) as refused:
        load_file(path)
    return refused.value


@pytest.mark.parametrize("zipped", [True, False])
def test_code_in_a_checkpoint_is_refused_and_not_run(tmp_path, zipped):
    path, trace = tmp_path / "evil.pth", tmp_path / "was-run"
    torch.save(
        {"state_dict": {"w": torch.zeros(1)}, "meta": Exploit(f"touch {trace}")},
        path,
        _use_new_zipfile_serialization=zipped,
    )
    error = refusal(path)
    assert "posix.system" in error.problem or "nt.system" in error.problem
    assert not trace.exists()


def test_a_bare_pickle_is_refused_and_not_run(tmp_path):
    trace = tmp_path / "was-run"
    for protocol in range(pickle.HIGHEST_PROTOCOL + 1):
        path = write(tmp_path, pickle.dumps(Exploit(f"touch {trace}"), protocol=protocol))
        refusal(path)
        assert not trace.exists()


def test_getattr_reaches_nothing_but_the_default_statistics(tmp_path):
    # what a file would need to climb from a harmless class to the builtins
    path = tmp_path / "climb.pth"
    torch.save({"meta": 0}, path)
    climb = (
        b"\x80\x02c__builtin__\ngetattr\ncmmengine.logging.history_buffer\nHistoryBuffer\n"
        b"X\x08\x00\x00\x00__init__\x86R."
    )
    with zipfile.ZipFile(path) as archive:
        files = {name: archive.read(name) for name in archive.namelist()}
    with zipfile.ZipFile(path, "w") as archive:
        for name, content in files.items():
            archive.writestr(name, climb if name.endswith("data.pkl") else content)
    assert "getattr" in refusal(path).problem


def test_a_name_of_100_000_letters_is_refused_without_searching_it_for_minutes(tmp_path):
    path = tmp_path / "x.pth"
    path.write_bytes(b"\x80\x02c" + b"m" * 100_000 + b"\nf\n)R.")
    assert len(refusal(path).problem) < 2000


def test_a_whole_model_object_is_refused_with_the_way_to_save_weights(tmp_path):
    path = tmp_path / "model.pth"
    torch.save(nn.Linear(2, 2), path)
    error = refusal(path)
    assert "whole model object" in error.problem
    assert "state_dict" in error.remedy


@pytest.mark.parametrize(
    ("content", "says"),
    [
        (b"", "empty"),
        (b"version https://git-lfs.github.com/spec/v1\noid sha256:00\nsize 1\n", "Git LFS"),
        (b"\n<!DOCTYPE html><html><body>Sign in</body></html>", "web page"),
        (b"<HTML><body>404</body></HTML>", "web page"),
        (b"Not a checkpoint at all", "truncated or damaged"),
        (bytes(range(256)) * 8, "truncated or damaged"),
        (b"PK\x03\x04" + bytes(200), "truncated or damaged"),
    ],
)
def test_a_file_that_is_no_checkpoint_is_called_what_it_is(tmp_path, content, says):
    assert says in refusal(write(tmp_path, content)).problem


def test_a_cut_off_checkpoint_is_refused(tmp_path):
    path = tmp_path / "whole.pth"
    torch.save({"state_dict": {"w": torch.randn(100, 100)}}, path)
    cut = write(tmp_path, path.read_bytes()[:20_000], "cut.pth")
    assert "truncated or damaged" in refusal(cut).problem


def test_a_missing_file_lists_what_is_beside_it(tmp_path):
    write(tmp_path, b"x", "epoch_12.pth")
    error = refusal(tmp_path / "epoch_13.pth")
    assert "no checkpoint" in error.problem
    assert "epoch_12.pth" in error.remedy
    assert "no folder" in refusal(tmp_path / "nowhere" / "a.pth").remedy


def test_a_folder_is_refused(tmp_path):
    assert "folder" in refusal(tmp_path).problem


def test_a_damaged_safetensors_file_is_refused(tmp_path):
    path = write(tmp_path, b"\x08\x00\x00\x00\x00\x00\x00\x00notjson!", "w.safetensors")
    assert "safetensors" in refusal(path).problem


def test_what_mmengine_writes_is_read_as_data(tmp_path):
    history = HistoryBuffer([1.0, 2.0], [1, 1])
    content = {
        "message_hub": {"log_scalars": OrderedDict(loss=history)},
        "numbers": [np.float64(0.5), np.float32(0.5), np.int64(3), np.bool_(True)],
        "array": np.arange(6, dtype=np.float32).reshape(2, 3),
        "metainfo": ConfigDict(classes=("a", "b"), nested={"palette": [(1, 2, 3)]}),
    }
    path = tmp_path / "mmengine.pth"
    torch.save(content, path)
    read = load_file(path)
    assert read["message_hub"]["log_scalars"]["loss"].mean() == history.mean()
    assert read["numbers"] == content["numbers"]
    assert np.array_equal(read["array"], content["array"])
    assert read["metainfo"].nested.palette == [(1, 2, 3)]


@pytest.mark.parametrize("module", [b"numpy.core.multiarray", b"numpy._core.multiarray"])
def test_numpy_numbers_of_either_numpy_are_read(tmp_path, module):
    path = tmp_path / "numbers.pth"
    torch.save({"best": np.float64(0.42)}, path)
    with zipfile.ZipFile(path) as archive:
        files = {name: archive.read(name) for name in archive.namelist()}
    with zipfile.ZipFile(path, "w") as archive:
        for name, content in files.items():
            for own in (b"numpy._core.multiarray", b"numpy.core.multiarray"):
                content = content.replace(b"c" + own + b"\n", b"c" + module + b"\n")
            archive.writestr(name, content)
    assert load_file(path)["best"] == 0.42


# --- through mmengine ----------------------------------------------------------------------------


class Toy(BaseModel):
    def __init__(self):
        super().__init__()
        self.layer = nn.Linear(2, 1)

    def forward(self, inputs, mode="tensor", **kwargs):
        return (
            {"loss": self.layer(torch.stack(inputs)).square().mean()} if mode == "loss" else inputs
        )


class Points(torch.utils.data.Dataset):
    metainfo = ConfigDict(classes=("a",))

    def __len__(self):
        return 4

    def __getitem__(self, index):
        return {"inputs": torch.ones(2) * index}


class Seen(Hook):
    def after_train_iter(self, runner, batch_idx, data_batch=None, outputs=None):
        runner.message_hub.update_info("best_score", np.float64(0.5))


def runner(folder, epochs, **options):
    return Runner(
        model=Toy(),
        work_dir=str(folder),
        train_dataloader={
            "dataset": Points(),
            "batch_size": 2,
            "sampler": {"type": "DefaultSampler", "shuffle": False},
        },
        train_cfg={"by_epoch": True, "max_epochs": epochs},
        optim_wrapper={"optimizer": {"type": "AdamW", "lr": 0.01}},
        param_scheduler=[
            {"type": "LinearLR", "start_factor": 0.1, "by_epoch": False, "begin": 0, "end": 3},
            {"type": "MultiStepLR", "by_epoch": True, "milestones": [1, 2]},
        ],
        custom_hooks=[Seen()],
        experiment_name=f"toy-{folder.name}-{epochs}",
        log_level="ERROR",
        **options,
    )


def test_a_run_of_mmengine_resumes_from_its_own_checkpoint(tmp_path, loaders):
    make_loading_safe()
    first = runner(tmp_path, 2)
    first.train()
    resumed = runner(tmp_path, 3, resume=True, load_from=str(tmp_path / "epoch_2.pth"))
    resumed.train()
    assert resumed.iter == 6
    assert resumed.message_hub.get_info("best_score") == 0.5
    assert len(resumed.message_hub.get_scalar("train/loss").data[0]) == 6
    moments = resumed.optim_wrapper.state_dict()["state"]
    assert float(moments[0]["step"]) == 6


def test_mmengine_refuses_code_once_loading_is_safe(tmp_path, loaders):
    path, trace = tmp_path / "evil.pth", tmp_path / "was-run"
    torch.save({"state_dict": {}, "meta": Exploit(f"touch {trace}")}, path)
    make_loading_safe()
    make_loading_safe()
    with pytest.raises(UserError):
        _load_checkpoint(str(path))
    assert not trace.exists()


def test_a_config_in_a_checkpoint_is_not_executed_on_resume(tmp_path, loaders):
    trace = tmp_path / "was-run"
    first = runner(tmp_path, 1)
    first.train()
    content = load_file(tmp_path / "epoch_1.pth")
    content["meta"]["config"] = f"open({str(trace)!r}, 'w').close()\n"
    torch.save(content, tmp_path / "epoch_1.pth")
    make_loading_safe()
    runner(tmp_path, 2, resume=True, load_from=str(tmp_path / "epoch_1.pth")).train()
    assert not trace.exists()


def test_what_is_fetched_from_elsewhere_is_read_as_data_too(tmp_path, loaders, monkeypatch):
    path, trace = tmp_path / "evil.pth", tmp_path / "was-run"
    torch.save({"state_dict": {}, "meta": Exploit(f"touch {trace}")}, path)

    def load_from_http(filename, map_location=None):
        return torch.load(path, map_location=map_location, weights_only=False)

    CheckpointLoader.register_scheme(["http://", "https://"], load_from_http, force=True)
    make_loading_safe()
    monkeypatch.setenv("TORCH_FORCE_NO_WEIGHTS_ONLY_LOAD", "1")
    with pytest.raises(UserError, match=r"posix\.system|nt\.system"):
        _load_checkpoint("https://example.com/evil.pth")
    assert not trace.exists()
    assert os.environ["TORCH_FORCE_NO_WEIGHTS_ONLY_LOAD"] == "1"
    assert "TORCH_FORCE_WEIGHTS_ONLY_LOAD" not in os.environ
