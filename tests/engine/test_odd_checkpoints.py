"""Checkpoints that hold other things than weights, or more than a machine does."""

from __future__ import annotations

import io
import json
import os
import struct
import zipfile
from collections import OrderedDict

import pytest
import torch
from mmengine.runner.checkpoint import CheckpointLoader
from torch import nn

from sparsevit.engine.checkpoint import load_weights, read_checkpoint
from sparsevit.engine.safe_load import load_from_local, make_loading_safe
from sparsevit.errors import UserError


def refusal(path, read=read_checkpoint) -> str:
    with pytest.raises(UserError) as caught:
        read(path)
    assert caught.value.remedy
    assert len(caught.value.problem) < 800
    return caught.value.problem


WEIGHT = torch.zeros(4, 4)
ODD = {
    "sparse": WEIGHT.to_sparse(),
    "meta": WEIGHT.to("meta"),
    "quantised": torch.quantize_per_tensor(WEIGHT, 0.1, 0, torch.qint8),
    "nested": torch.nested.nested_tensor([WEIGHT, WEIGHT]),
    "complex": WEIGHT.to(torch.complex64),
    "4 TB": torch.zeros(1).expand(10**6, 10**6),
}


@pytest.mark.parametrize("kind", ODD)
@pytest.mark.parametrize("read", [read_checkpoint, load_from_local], ids=["ours", "mmengine's"])
def test_a_weight_that_is_no_plain_tensor_is_named(tmp_path, kind, read):
    path = tmp_path / "odd.pth"
    torch.save({"state_dict": {"fc.weight": ODD[kind]}}, path)
    said = refusal(path, read)
    assert "fc.weight" in said
    assert kind in said


@pytest.mark.parametrize("kind", [torch.int8, torch.int64, torch.bool])
def test_whole_numbers_are_no_weights_of_a_model_of_real_ones(tmp_path, kind):
    path = tmp_path / "whole.pth"
    model = nn.Linear(2, 2)
    torch.save({"weight": torch.ones(2, 2, dtype=kind), "bias": torch.ones(2)}, path)
    before = model.weight.clone()
    said = refusal(path, lambda path: load_weights(model, path))
    assert "weight: " in said
    assert str(kind).removeprefix("torch.") in said
    assert torch.equal(model.weight, before)


@pytest.mark.parametrize(
    ("content", "says"),
    [
        ([1, 2], "a list"),
        ({0: torch.zeros(1)}, "of type int"),
        ({"state_dict": {}}, "no weights"),
        ({"state_dict": [1]}, "no weights"),
        ({"weight": 3}, "no weights"),
        ({"x" * 10_000: 3}, "no weights"),
    ],
    ids=["list", "number-for-name", "empty", "list-inside", "number-for-weight", "long-name"],
)
def test_a_file_without_named_weights_says_what_it_has(tmp_path, content, says):
    path = tmp_path / "other.pth"
    torch.save(content, path)
    assert says in refusal(path)


def rewritten(path, change, compression=zipfile.ZIP_STORED):
    """A checkpoint's zip file with its entries changed."""
    source = zipfile.ZipFile(io.BytesIO(path.read_bytes()))
    with zipfile.ZipFile(path, "w", compression) as target:
        for name in source.namelist():
            target.writestr(name, change(name, source.read(name)))
    return path


def test_a_zip_file_that_unpacks_to_many_times_its_size_is_not_unpacked(tmp_path):
    path = tmp_path / "bomb.pth"
    torch.save({"w": torch.zeros(2)}, path)
    rewritten(
        path, lambda name, data: bytes(1 << 24) if "/data/" in name else data, zipfile.ZIP_DEFLATED
    )
    assert "unpacks to" in refusal(path)


class Forged:
    """Pickles as a tensor of a size and strides of one's choice."""

    def __init__(self, size, stride, offset=0):
        self.arguments = (torch.zeros(4).storage(), offset, size, stride, False, OrderedDict())

    def __reduce__(self):
        return torch._utils._rebuild_tensor_v2, self.arguments


@pytest.mark.parametrize(
    ("size", "stride", "offset"),
    [
        ((10**15,), (1,), 0),
        ((2**62, 2**62), (1, 1), 0),
        ((-1,), (1,), 0),
        ((2,), (-1,), 0),
        ((2,), (1,), 10**12),
        ((10**6, 10**6), (0, 0), 0),
        (("a",), (1,), 0),
    ],
)
@pytest.mark.parametrize("zipped", [True, False], ids=["zip", "legacy"])
def test_a_tensor_larger_than_what_is_stored_is_refused(tmp_path, size, stride, offset, zipped):
    path = tmp_path / "forged.pth"
    torch.save({"w": Forged(size, stride, offset)}, path, _use_new_zipfile_serialization=zipped)
    refusal(path)


def header(path, content: bytes) -> None:
    path.write_bytes(struct.pack("<Q", len(content)) + content)


@pytest.mark.parametrize(
    "content",
    [
        b'{"a":' * 100_000,
        b"[" * 100_000,
        json.dumps({"__metadata__": {"meta": "[" * 100_000}}).encode(),
        json.dumps({"__metadata__": {"meta": "9" * 6_000}}).encode(),
        json.dumps({"w": {"dtype": "F32", "shape": [2**40], "data_offsets": [0, 2**42]}}).encode(),
    ],
    ids=["deep", "list", "deep-meta", "digits", "huge"],
)
def test_a_safetensors_header_that_is_none_is_refused(tmp_path, content):
    path = tmp_path / "odd.safetensors"
    header(path, content)
    assert "truncated or damaged" in refusal(path)


@pytest.mark.parametrize("suffix", [".pth", ".safetensors"])
def test_a_file_larger_than_the_memory_is_not_read(tmp_path, suffix):
    path = tmp_path / f"large{suffix}"
    with path.open("wb") as file:
        file.write(b"PK\x03\x04")
        file.truncate(1 << 42)
    assert "4.4 TB of memory" in refusal(path)


def test_what_is_no_file_is_refused_at_once(tmp_path):
    os.mkfifo(tmp_path / "pipe.pth")
    (tmp_path / "loop.pth").symlink_to("loop.pth")
    assert "is a pipe" in refusal(tmp_path / "pipe.pth")
    assert "leads back to itself" in refusal(tmp_path / "loop.pth")
    assert "is a device" in refusal("/dev/zero")
    assert "name is too long" in refusal(tmp_path / ("a" * 300))
    assert "There is no checkpoint" in refusal("~no-such-user/a.pth")


def test_an_address_that_cannot_be_reached_is_named_with_the_way_out(monkeypatch):
    def unreachable(filename, map_location=None):
        raise OSError("Name or service not known")

    monkeypatch.setattr(CheckpointLoader, "_schemes", dict(CheckpointLoader._schemes))
    CheckpointLoader.register_scheme(["https://"], unreachable, force=True)
    make_loading_safe()
    with pytest.raises(UserError) as caught:
        CheckpointLoader.load_checkpoint("https://me:secret@example.com/swin.pth?token=secret")
    assert "https://example.com/swin.pth cannot be fetched" in caught.value.problem
    assert "Name or service not known" in caught.value.problem
    assert "secret" not in caught.value.problem
    assert "give the path" in caught.value.remedy
