"""Connections as a method: conversion, knobs, both stages of a training, and that it goes on."""

from __future__ import annotations

import copy

import pytest
import torch
import torch.nn.functional as F
from sparsifiner_models import OWN, PREDICTOR, Classifier, classifier, deit
from torch import nn

import sparsevit.models.sparsifiner_backbones as backbones
from sparsevit.errors import UserError
from sparsevit.methods import methods_in
from sparsevit.methods.attention import Connections, SparseConnections
from sparsevit.methods.attention.convert import ConnectedAttention
from sparsevit.models import released
from sparsevit.models.sparsifiner import SparsifinerConfig, build_sparsifiner
from sparsevit.sparsity.handle import SparsityHandle


class Training:
    """Calls a method as the hook does."""

    def __init__(self, model, total, rate=1e-3):
        self.model = model.train()
        self.method = methods_in(model)[0]
        self.method.before_training(total, 0)
        self.optimizer = torch.optim.AdamW(model.parameters(), lr=rate, weight_decay=0.05)
        self.step, self.losses = 0, []

    def run(self, steps=1, images=None):
        for _ in range(steps):
            drawn = torch.Generator().manual_seed(self.step)
            batch = torch.randn(4, 3, 32, 32, generator=drawn) if images is None else images
            labels = torch.randint(5, (4,), generator=drawn)
            self.method.before_step(self.step)
            self.optimizer.zero_grad()
            loss = F.cross_entropy(self.model(batch), labels)
            self.losses.append(self.method.extra_loss())
            (loss + sum(self.losses[-1].values())).backward()
            self.optimizer.step()
            self.step += 1
        return self


def weights_of(model, predictors):
    return {
        name: one.detach().clone()
        for name, one in model.named_parameters()
        if (PREDICTOR in name) == predictors
    }


def changed(before, after):
    return {name for name, one in before.items() if not torch.equal(one, after[name])}


# --- conversion -----------------------------------------------------------------------------------


def test_a_converted_model_keeps_its_weights_and_at_ratio_0_its_outputs():
    model = deit()
    model.eval()
    images = torch.randn(2, 3, 32, 32)
    with torch.no_grad():
        expected = model(images)[0]
        before = model.state_dict()
        assert Connections.convert(model, keep_rate=0.25) is model
        handle = SparsityHandle(model)
        assert dict(handle.get()) == {"layers.0": 0.75, "layers.1": 0.75}
        sparse = model(images)[0]
        handle.set(handle.space.dense())
        assert torch.equal(model(images)[0], expected)
    assert not torch.allclose(sparse, expected, atol=1e-3)
    after = model.state_dict()
    assert all(torch.equal(after[name], one) for name, one in before.items())
    assert {name for name in after if name not in before} == {
        f"layers.{i}.attn.mask_predictor.{name}"
        for i in range(2)
        for name in (
            *("proj_n", "proj_back_n", "proj_c_q.weight", "proj_c_q.bias"),
            *("proj_c_k.weight", "proj_c_k.bias"),
        )
    }


def test_a_converted_deit_is_the_whole_module_of_the_same_weights():
    """mmpretrain's attention with predictors computes what ours does."""
    own = build_sparsifiner(SparsifinerConfig(**OWN, keep_rate=0.3)).eval()
    for parameter in own.parameters():
        parameter.data.normal_(std=0.2)
    head = backbones.MODELS.build(
        {"type": "VisionTransformerClsHead", "num_classes": 5, "in_channels": 16}
    )
    converted = Classifier(deit(backbones.SparsifinerDeiT, sparsifiner={"keep_rate": 0.3}), head)
    converted.eval()
    released.load(converted, own.state_dict())
    images = torch.randn(2, 3, 32, 32)
    with torch.no_grad():
        assert torch.allclose(converted(images), own(images), atol=1e-5)


def test_timms_deit_is_converted():
    timm = pytest.importorskip("timm")
    torch.manual_seed(0)
    model = timm.create_model("deit_tiny_patch16_224", img_size=64, depth=2, num_classes=5).eval()
    images = torch.randn(2, 3, 64, 64)
    with torch.no_grad():
        expected = model(images)
        Connections.convert(model, keep_rate=[0.5, 0.25])
        handle = SparsityHandle(model)
        assert dict(handle.get()) == {"blocks.0": 0.5, "blocks.1": 0.75}
        assert not torch.equal(model(images), expected)
        handle.set(handle.space.dense())
        assert torch.allclose(model(images), expected, atol=1e-6)


@pytest.mark.parametrize(
    ("options", "told"),
    [
        ({"keep_rate": 0}, "keep_rate=0 is not above 0"),
        ({"keep_rate": "much"}, "keep_rate='much'"),
        ({"keep_rate": [0.5]}, "1 keep rates are given for 2 layers"),
        ({"reduce_n": 66}, "reduce_n=66 leaves none of 65"),
        ({"connections": "random"}, "connections='random'"),
        ({"keeprate": 0.5}, "no option keeprate"),
        ({"choices": [1.0]}, "not within"),
        ({"first_stage": 2}, "first_stage=2 is above 1"),
        ({"distill_logits": -1}, "distill_logits=-1"),
    ],
)
def test_a_wrong_option_is_told_in_words(options, told):
    with pytest.raises(UserError, match=told.replace("[", r"\[")) as caught:
        Connections.convert(deit(), **options)
    assert caught.value.remedy


@pytest.mark.parametrize(
    ("model", "told"),
    [
        (lambda: nn.Linear(2, 2), "has no attention"),
        (lambda: deit(with_cls_token=False, out_type="avg_featmap"), "0 tokens beside the patches"),
        (lambda: deit(layer_cfgs={"attn_drop_rate": 0.1}), "drops attention"),
    ],
)
def test_a_model_that_does_not_suit_is_told_in_words(model, told):
    with pytest.raises(UserError, match=told):
        Connections.convert(model())


def test_images_of_another_size_are_refused():
    model = Connections.convert(deit())
    model.eval()
    with pytest.raises(UserError, match="17 tokens, and the predictor"):
        model(torch.randn(1, 3, 16, 16))


# --- knobs ----------------------------------------------------------------------------------------


def test_a_knob_has_one_choice_unless_more_are_given():
    fixed = Connections.convert(deit(), keep_rate=[0.5, 0.25])
    assert [knob.choices for knob in SparsityHandle(fixed).space.knobs] == [(0.5,), (0.75,)]
    free = Connections.convert(deit(), choices=[0, 0.5, 0.9])
    assert SparsityHandle(free).space.size() == 9
    # layers are independent: no rule that ratios never fall
    handle = SparsityHandle(free)
    handle.set({"layers.0": 0.9, "layers.1": 0.0})
    assert free.layers[0].attn.mask_predictor.keep_rate == 0.1
    assert free.layers[1].attn.mask_predictor.is_dense(65)


@pytest.mark.parametrize("kind", ["deit", "lvvit"])
def test_our_own_module_has_the_same_knobs(kind):
    model = build_sparsifiner(SparsifinerConfig(**{**OWN, "architecture": kind}))
    assert dict(SparsityHandle(model).get()) == {"blocks.0": 0.75, "blocks.1": 0.75}
    assert isinstance(methods_in(model)[0], Connections)


def test_a_copy_has_knobs_of_its_own():
    model = Connections.convert(deit())
    other = copy.deepcopy(model)
    SparsityHandle(other).set(SparsityHandle(other).space.dense())
    assert model.layers[0].attn.mask_predictor.keep_rate == 0.25
    assert isinstance(other.layers[0].attn, ConnectedAttention)


# --- training -------------------------------------------------------------------------------------


@pytest.mark.parametrize("kind", ["deit", "lvvit"])
def test_first_the_predictors_learn_alone_then_all_else(kind):
    training = Training(classifier(kind, first_stage=0.5), total=4)
    rest, predictors = (weights_of(training.model, one) for one in (False, True))
    training.run(2)
    assert [set(one) for one in training.losses] == [{"reconstruction"}] * 2
    assert not changed(rest, weights_of(training.model, False))
    assert changed(predictors, weights_of(training.model, True))
    predictors = weights_of(training.model, True)
    training.run(2)
    assert [set(one) for one in training.losses[2:]] == [{"logits", "tokens"}] * 2
    assert len(changed(rest, weights_of(training.model, False))) > len(rest) * 0.7
    assert all(loss > 0 for one in training.losses for loss in one.values())


def test_the_first_stage_is_dense_and_its_loss_is_the_summed_squared_error():
    model = classifier(first_stage=1.0)
    images = torch.randn(2, 3, 32, 32)
    method = methods_in(model)[0]
    method.before_training(1, 0)
    method.before_step(0)
    model.train()
    given = {}
    for name, layer in enumerate(model.backbone.layers):
        layer.attn.register_forward_pre_hook(
            lambda module, args, name=name: given.update({name: args[0].detach()})
        )
    found = model(images)
    loss = method.extra_loss()["reconstruction"]
    handle = SparsityHandle(model)
    handle.set(handle.space.dense())
    assert torch.equal(model(images), found)
    expected = 0.0
    for name, layer in enumerate(model.backbone.layers):
        attn, predictor = layer.attn, layer.attn.mask_predictor
        q, k, _ = attn.qkv(given[name]).view(2, 65, 3, 2, 8).permute(2, 0, 3, 1, 4)
        attention = (q @ k.transpose(-2, -1) * 8**-0.5).softmax(-1)[:, :, 1:]
        cheap = predictor.proj_c_q(q[:, :, 1:]) @ (
            predictor.proj_c_k(k).transpose(-2, -1) @ predictor.proj_n
        )
        weights = (cheap * 2**-0.5).softmax(-1)
        weights = weights * (weights >= weights.topk(8).values[..., -1:])
        basis = predictor.proj_back_n.abs()
        basis = (basis * (basis > 0.02)).t()
        expected += (weights @ basis - attention).square().sum() / 2
    assert loss.item() == pytest.approx(0.01 * expected.item(), rel=1e-4)


def test_the_error_falls_as_the_predictors_learn():
    training = Training(classifier(first_stage=1.0), total=200, rate=1e-2)
    images = torch.randn(4, 3, 32, 32)
    training.run(60, images)
    errors = [float(one["reconstruction"].detach()) for one in training.losses]
    assert errors[-1] < 0.7 * errors[0]


def test_the_teacher_is_the_model_of_the_start_and_dense():
    model = classifier(first_stage=0.0, keep_rate=1.0)
    training = Training(model, total=3, rate=0.1)
    training.run(1)
    # the student still was its teacher, and dense
    assert all(float(one) == pytest.approx(0, abs=1e-6) for one in training.losses[0].values())
    training.run(1)
    assert all(one > 1e-4 for one in training.losses[1].values())


def test_pruned_tokens_are_compared_with_the_same_of_the_teacher():
    model = classifier("lvvit", prune_tokens={0: 0.5}, keep_rate=1.0, first_stage=0.0)
    training = Training(model, total=2)
    training.run(1)
    assert set(training.losses[0]) == {"logits", "tokens"}
    assert training.losses[0]["tokens"] > 0


@pytest.mark.parametrize("steps", [1, 3])
def test_a_training_that_goes_on_is_the_same_as_one_that_was_not_broken_off(steps):
    whole = Training(classifier(first_stage=0.5), total=4).run(4)
    begun = Training(classifier(first_stage=0.5), total=4).run(steps)
    saved = copy.deepcopy(
        {
            "model": begun.model.state_dict(),
            "optimizer": begun.optimizer.state_dict(),
            "method": begun.method.state_dict(),
        }
    )
    assert not any(PREDICTOR in name for name in saved["method"]["teacher"])
    model = classifier(first_stage=0.5)
    model.load_state_dict(saved["model"])
    resumed = Training(model, total=4)
    resumed.method.load_state_dict(saved["method"])
    resumed.optimizer.load_state_dict(saved["optimizer"])
    resumed.step = steps
    resumed.run(4 - steps)
    assert not changed(dict(whole.model.named_parameters()), dict(model.named_parameters()))


def test_the_teacher_of_another_model_is_refused():
    training = Training(classifier(), total=4)
    with pytest.raises(UserError, match="another model"):
        training.method.load_state_dict({"teacher": {"head.weight": torch.zeros(1)}})


def test_without_a_teacher_nothing_else_is_needed():
    model = Connections.convert(deit(), first_stage=0.5, distill_logits=0, distill_tokens=0)
    model.train()
    method = methods_in(model)[0]
    method.before_training(2, 0)
    for step, wanted in enumerate(({"reconstruction"}, set())):
        method.before_step(step)
        model(torch.randn(1, 3, 32, 32))
        assert set(method.extra_loss()) == wanted
    assert method.state_dict() == {}


def test_a_teacher_needs_a_classifier():
    with pytest.raises(UserError, match="no classifier"):
        methods_in(Connections.convert(deit()))[0].before_training(2, 0)


def test_validation_between_iterations_is_sparse_and_leaves_nothing_behind():
    training = Training(classifier(first_stage=1.0), total=4).run(1)
    images = torch.randn(1, 3, 32, 32)
    training.model.eval()
    with torch.no_grad():
        sparse = training.model(images)
        handle = SparsityHandle(training.model)
        handle.set(handle.space.dense())
        assert not torch.equal(training.model(images), sparse)
    assert not training.method._seen.keys() - {"images", "tokens", "logits"}
    assert isinstance(training.method.part, SparseConnections)
