"""Numbers that are not finite stop what goes on, by name, and nothing of them is saved."""

from __future__ import annotations

from pathlib import Path
from types import SimpleNamespace

import pytest
import tiny
import torch
from torch import nn

from sparsevit.engine import finite
from sparsevit.engine.checkpoint import load_weights, write_weights
from sparsevit.engine.finite import AMP_PATIENCE, FiniteHook, finite_maps, not_finite
from sparsevit.errors import RunFailed

NAN, INF = float("nan"), float("inf")


def runner(**more):
    return SimpleNamespace(model=nn.Linear(2, 2), iter=6, optim_wrapper=None, **more)


def spoil(module, value):
    with torch.no_grad():
        next(iter(module.parameters())).view(-1)[0] = value


@pytest.mark.parametrize("value", [NAN, INF, -INF])
def test_the_first_tensor_that_is_not_finite_is_named(value):
    tensors = {"a": torch.ones(2), "b": torch.tensor([1.0, value]), "c": torch.tensor(value)}
    assert not_finite(tensors) == "b"
    assert not_finite({"a": torch.ones(2), "n": torch.tensor(3), "s": "text"}) == ""


def test_a_buffer_may_be_a_mask_but_not_nan():
    assert not_finite({"mask": torch.tensor(-INF)}, buffers=lambda name: True) == ""
    assert not_finite({"mean": torch.tensor(NAN)}, buffers=lambda name: True) == "mean"


@pytest.mark.parametrize(
    "tensor",
    [
        torch.ones(2).to(torch.float8_e4m3fn),
        torch.ones(2, dtype=torch.bfloat16),
        torch.ones(2, 2).to_sparse(),
        torch.ones(2, device="meta"),
        torch.quantize_per_tensor(torch.ones(2), 0.1, 0, torch.qint8),
    ],
    ids=lambda tensor: str(tensor.dtype),
)
def test_tensors_of_any_kind_are_looked_at_or_passed_over(tensor):
    assert not_finite({"a": tensor}) == ""


@pytest.mark.parametrize("value", [NAN, INF])
def test_a_loss_that_is_not_finite_stops_training(value):
    hook, one = FiniteHook(), runner()
    hook.after_train_iter(one, 0, outputs={"loss": torch.tensor(1.0)})
    with pytest.raises(RunFailed, match=rf"loss is {value} at iteration 7") as caught:
        hook.after_train_iter(one, 0, outputs={"loss": torch.tensor(value)})
    assert "learning rate" in caught.value.remedy


def test_mixed_precision_may_overflow_now_and_then(monkeypatch):
    monkeypatch.setattr(finite, "_scales_loss", lambda wrapper: True)
    hook, one = FiniteHook(), runner()
    for _ in range(3):
        for value in (*[INF] * AMP_PATIENCE, 1.0):
            hook.after_train_iter(one, 0, outputs={"loss": torch.tensor(value)})
    for _ in range(AMP_PATIENCE):
        hook.after_train_iter(one, 0, outputs={"loss": torch.tensor(NAN)})
    with pytest.raises(RunFailed):
        hook.after_train_iter(one, 0, outputs={"loss": torch.tensor(NAN)})


def test_weights_that_are_not_finite_are_not_saved():
    hook, one = FiniteHook(), runner()
    hook.before_train(one)
    hook.before_save_checkpoint(one, {})
    spoil(one.model, NAN)
    with pytest.raises(RunFailed, match=r"weight weight is not finite .* after iteration 7"):
        hook.before_save_checkpoint(one, {})


def test_a_backbone_that_overflows_is_named_with_its_image():
    backbone = nn.Linear(2, 2)
    with finite_maps(backbone, lambda: "a.jpg"):
        backbone(torch.ones(1, 2))
        with pytest.raises(RunFailed, match=r"a\.jpg"):
            backbone(torch.tensor([[INF, 1.0]]))
    backbone(torch.tensor([[INF, 1.0]]))


def test_a_checkpoint_that_is_not_finite_is_refused_and_nothing_is_loaded(tmp_path):
    model, other = nn.Linear(2, 2), nn.Linear(2, 2)
    spoil(other, NAN)
    path = write_weights(tmp_path / "nan.pth", other.state_dict())
    before = {name: value.clone() for name, value in model.state_dict().items()}
    with pytest.raises(RunFailed, match=r"nan\.pth has weights that are not finite .*: weight"):
        load_weights(model, path)
    assert all(torch.equal(before[name], value) for name, value in model.state_dict().items())


def test_a_training_that_diverges_fails_and_names_its_last_good_checkpoint(tmp_path, tiny_config):
    words = ("--workspace", tmp_path, "--set", "optim_wrapper.optimizer.lr=1e30", "--json")
    done = tiny.run("pretrain", tiny_config, *words)
    assert done.code == 1
    assert "Traceback" not in done.err
    said = done.document["error"]["problem"]
    left = Path(said.rpartition("The last good checkpoint is ")[2].rstrip("."))
    assert not not_finite(torch.load(left, weights_only=False)["state_dict"])
    (run,) = tiny.run("status", "--workspace", tmp_path, "--json").document["runs"]
    assert run["status"] == "failed"
    assert "training has diverged" in run["error"]


@pytest.mark.parametrize("phase", ["evaluate", "search", "adapt"])
def test_a_phase_that_is_given_nan_fails(workspace, tiny_config, tmp_path, phase):
    content = torch.load(workspace / "adapt/run-001/iter_4.pth", weights_only=False)
    content["state_dict"]["backbone.norm0.weight"][0] = NAN
    torch.save(content, tmp_path / "nan.pth")
    more = tiny.SEARCH if phase == "search" else ()
    done = tiny.run(
        phase, tiny_config, tmp_path / "nan.pth", "--workspace", workspace, "--json", *more
    )
    assert done.code == 1
    assert "Traceback" not in done.err
    assert "backbone.norm0.weight" in done.document["error"]["problem"]


def test_a_part_whose_maps_are_looked_at_can_become_a_graph():
    part = nn.Linear(2, 2)
    with finite_maps(part, lambda: "an image"):
        graph = torch.export.export(part, (torch.ones(1, 2),), strict=False)
    assert torch.equal(graph.module()(torch.ones(1, 2)), part(torch.ones(1, 2)))
