"""Training with exact masks: what is dead, what grows, and a run that goes on."""

from __future__ import annotations

import copy
import io

import pytest
import svite_models
import torch
from svite_models import Training, classifier
from torch import nn

import sparsevit.models.svite as svite
from sparsevit.errors import UserError
from sparsevit.methods import methods_in
from sparsevit.methods.weights import Weights
from sparsevit.methods.weights.blocks import blocks_of
from sparsevit.sparsity.handle import SparsityHandle
from sparsevit.sparsity.weights import erk_densities, prunable, prune_and_grow

UNSTRUCTURED = {"density": 0.5, "update_interval": 3}
STRUCTURED = {"heads": 0.5, "neurons": 0.6, "update_interval": 3}
PATTERN = {"pattern": "2:4", "update_interval": 3}
KINDS = pytest.mark.parametrize("options", [UNSTRUCTURED, STRUCTURED, PATTERN])


def held(training, name, weight):
    """Everything that a training holds of a weight: itself, gradient, moments."""
    state = training.optimizer.state[weight]
    return {"weight": weight, "gradient": weight.grad, **{k: state[k] for k in MOMENTS}}


MOMENTS = ("exp_avg", "exp_avg_sq")


@KINDS
def test_all_that_is_held_of_a_dead_connection_is_zero_at_every_step(options):
    training = Training(classifier(svite=options), total=20)
    weights = dict(training.model.named_parameters())
    for _ in range(20):
        training.run(max_norm=1.0)
        assert training.method.masks
        for name, mask in training.method.masks.items():
            for what, values in held(training, name, weights[name]).items():
                assert not values[~mask].any(), (training.step, name, what)


def test_the_network_is_as_dense_as_was_asked_for_layer_by_layer():
    training = Training(classifier(svite={"density": 0.3, "update_interval": 4})).run()
    weights = dict(training.model.named_parameters())
    shapes = {n: tuple(w.shape) for n, w in weights.items() if prunable(n, w.shape)}
    densities = erk_densities(shapes, 0.3)
    assert "head.weight" in shapes
    assert set(training.method.masks) == set(shapes)
    before = {name: int(mask.sum()) for name, mask in training.method.masks.items()}
    for name, mask in training.method.masks.items():
        assert before[name] == round(densities[name] * mask.numel())
    training.run(12)
    assert {name: int(mask.sum()) for name, mask in training.method.masks.items()} == before


def test_growth_goes_by_the_gradient_of_the_dense_weight():
    training = Training(classifier(svite={"density": 0.5, "update_interval": 2})).run(1)
    masks = dict(training.method.masks)
    # the second iteration by hand, without a mask on any gradient
    plain = classifier(svite_models.svite.VisionTransformer)
    plain.load_state_dict(training.model.state_dict())
    images, labels = svite_models.batch(1)
    nn.functional.cross_entropy(plain(images), labels).backward()
    training.method.before_step(1)
    training.optimizer.zero_grad()
    nn.functional.cross_entropy(training.model(images), labels).backward()
    training.optimizer.step()
    weights = {n: p.detach().clone() for n, p in training.model.named_parameters()}
    training.method.after_optimizer_step(1, training.optimizer)
    rate = 0.5 * (0.5 + 0.005) + 0.5 * (0.5 - 0.005) * torch.cos(torch.tensor(torch.pi * 2 / 20))
    for name, gradient in ((n, p.grad) for n, p in plain.named_parameters() if n in masks):
        wanted = prune_and_grow(weights[name], masks[name], gradient, float(rate))
        assert torch.equal(training.method.masks[name], wanted), name
    grown = {n: m & ~masks[n] for n, m in training.method.masks.items()}
    assert sum(int(one.sum()) for one in grown.values()) > 50
    for name, weight in training.model.named_parameters():
        if name in grown:
            for what, values in held(training, name, weight).items():
                assert not values[grown[name]].any(), (name, what)


def test_masks_stand_still_without_an_interval_and_after_four_fifths():
    static = Training(classifier(svite={"density": 0.5})).run(1)
    first = dict(static.method.masks)
    static.run(8)
    assert all(torch.equal(mask, static.method.masks[name]) for name, mask in first.items())
    training = Training(classifier(svite=UNSTRUCTURED), total=20).run(15)
    assert training.method.updates == 5
    last = dict(training.method.masks)
    training.run(5)
    assert training.method.updates == 5
    assert all(torch.equal(mask, training.method.masks[name]) for name, mask in last.items())


def test_structured_masks_take_whole_heads_and_neurons():
    training = Training(classifier(svite=STRUCTURED), total=20)
    seen = set()
    for _ in range(5):
        training.run(3)
        for block in blocks_of(training.model):
            heads = training.method.kept[f"{block.name}.heads"]
            neurons = training.method.kept[f"{block.name}.neurons"]
            assert (int(heads.sum()), int(neurons.sum())) == (2, int(32 * 0.6))
            rows = block.qkv.weight.view(3, 4, -1)
            # one that has just grown is zero too
            assert not rows[:, ~heads].any()
            assert not block.fc1.weight[~neurons].any()
            assert not block.fc2.weight[:, ~neurons].any()
            seen.add((block.name, tuple(heads.tolist())))
    assert len(seen) > 2, "no head ever changed"
    untouched = {"backbone.layers.0.attn.proj.weight", "head.weight"}
    assert not untouched & set(training.method.masks)


def test_what_grows_changes_nothing_and_learns_at_once():
    training = Training(classifier(svite=STRUCTURED), total=40).run(2)
    images, _ = svite_models.batch(99)
    training.method.before_step(2)
    before = dict(training.method.kept)
    training.optimizer.zero_grad()
    batch, labels = svite_models.batch(2)
    nn.functional.cross_entropy(training.model(batch), labels).backward()
    training.optimizer.step()
    # scores by hand, so that a dead head grows
    grows = {name: ~kept for name, kept in before.items() if name.endswith("heads")}
    for block in blocks_of(training.model):
        growth = grows[f"{block.name}.heads"].float()
        training.method._scores[block.name] = (growth, growth)
    training.method.after_optimizer_step(2, training.optimizer)
    assert any((training.method.kept[name] & grown).any() for name, grown in grows.items())
    training.run(3)
    for block in blocks_of(training.model):
        alive = training.method.kept[f"{block.name}.heads"]
        rows = block.qkv.weight.detach().view(3, 4, -1)
        # queries, keys and values alike
        assert rows[:, alive].abs().amax(dim=2).gt(0).all()
    assert torch.isfinite(training.model(images)).all()


def test_two_of_every_four_are_alive():
    training = Training(classifier(svite=PATTERN), total=20).run(14)
    assert training.method.updates == 4
    assert "backbone.patch_embed.projection.weight" not in training.method.masks
    for name, mask in training.method.masks.items():
        weight = training.model.get_parameter(name)
        assert (mask.view(-1, 4).sum(dim=1) == 2).all()
        assert ((weight.detach() != 0).view(-1, 4).sum(dim=1) <= 2).all()


@pytest.mark.parametrize("options", [UNSTRUCTURED, STRUCTURED, PATTERN, {"density": 1.0}])
@pytest.mark.parametrize("kind", [svite.SViTE, svite.DistilledSViTE])
def test_names_of_weights_stay_those_of_the_dense_transformer(options, kind):
    (dense,) = (base for base in kind.__bases__)
    plain = classifier(dense)
    model = classifier(kind, svite=options)
    assert list(model.state_dict()) == list(plain.state_dict())
    model.load_state_dict(plain.state_dict())
    images, _ = svite_models.batch(0)
    assert torch.equal(model.eval()(images), plain.eval()(images))


def test_a_model_is_converted_where_it_is():
    plain = classifier(svite.VisionTransformer)
    assert Weights.convert(plain, density=0.25) is plain
    assert type(plain.backbone) is svite.VisionTransformer
    assert SparsityHandle(plain).get() == {"backbone.weights": 0.75}
    (method,) = methods_in(plain)
    assert isinstance(method, Weights)


@KINDS
def test_a_run_that_was_killed_goes_on_with_the_same_masks_and_draws(options):
    options = {**options, "tokens": 0.7}
    whole = Training(classifier(svite=options), total=20, seed=3).run(20)
    first = Training(classifier(svite=options), total=20, seed=3).run(8)
    file = io.BytesIO()
    torch.save(first.saved(), file)
    file.seek(0)
    saved = torch.load(file, weights_only=True)
    second = Training(classifier(svite=options), total=20, seed=3).resume(saved).run(12)
    assert second.method.updates == whole.method.updates == 5
    for name, mask in whole.method.masks.items():
        assert torch.equal(second.method.masks[name], mask), name
    for name, value in whole.model.state_dict().items():
        assert torch.equal(second.model.state_dict()[name], value), name


def test_masks_of_another_model_are_refused():
    saved = Training(classifier(svite=UNSTRUCTURED)).run(1).saved()
    wider = {**svite_models.ARCH, "feedforward_channels": 48}
    training = Training(classifier(arch=wider, svite=UNSTRUCTURED))
    with pytest.raises(UserError, match="masks are not those of this model"):
        training.method.load_state_dict(saved["method"])
    with pytest.raises(UserError, match="masks are not those of this model"):
        Training(classifier(svite=STRUCTURED)).method.load_state_dict(saved["method"])


@KINDS
def test_weights_that_were_trained_sparse_keep_their_zeros(options):
    trained = Training(classifier(svite=options), total=20).run(20)
    model = classifier(svite=options)
    model.load_state_dict(trained.model.state_dict())
    again = Training(model, total=20, seed=9).run(1)
    for name, mask in trained.method.masks.items():
        alive = trained.model.get_parameter(name).detach() != 0
        assert torch.equal(again.method.masks[name], mask & alive), name


@pytest.mark.parametrize("options", [UNSTRUCTURED, PATTERN])
def test_a_new_head_of_zeros_gets_a_mask_of_its_own(options):
    trained = Training(classifier(svite=options), total=20).run(20)
    model = classifier(svite=options)
    model.load_state_dict(trained.model.state_dict())
    model.head.weight.data.zero_()
    again = Training(model, total=20).run(1)
    share = float(again.method.masks["head.weight"].float().mean())
    assert 0.3 < share <= 1
    name = "backbone.layers.0.attn.qkv.weight"
    assert torch.equal(again.method.masks[name], trained.model.get_parameter(name) != 0)


def test_weights_that_are_sparse_but_not_enough_are_refused():
    trained = Training(classifier(svite={"density": 0.8})).run(1)
    model = classifier(svite={"density": 0.5})
    model.load_state_dict(trained.model.state_dict())
    with pytest.raises(UserError, match="sparse already"):
        Training(model).run(1)


def test_an_average_is_as_sparse_as_the_model():
    training = Training(classifier(svite=UNSTRUCTURED), total=20)
    average = svite.SparseEMA(training.model, momentum=0.1)
    for _ in range(14):
        training.run()
        average.update_parameters(training.model)
    for name, mask in training.method.masks.items():
        averaged = average.module.get_parameter(name)
        assert not averaged[~mask].any()
        assert averaged[mask].any()


def test_a_copy_shares_nothing_with_the_training():
    training = Training(classifier(svite={**UNSTRUCTURED, "tokens": 0.7})).run(2)
    copied = copy.deepcopy(training.model)
    copied.backbone._sparsity.set_sparsity({"weights": 0.5, "tokens": 0.2})
    assert training.model.backbone.token_selector.ratio == 0.3
    assert copied.backbone.token_selector.ratio == 0.2
    assert copied.backbone(torch.zeros(1, 3, 16, 16))[-1].shape == (1, 16)


def test_a_training_that_is_over_masks_nothing_any_more():
    training = Training(classifier(svite=UNSTRUCTURED)).run(2)
    model = training.model
    masks = dict(training.method.masks)
    del training
    model.zero_grad()
    images, labels = svite_models.batch(0)
    nn.functional.cross_entropy(model(images), labels).backward()
    assert any(model.get_parameter(name).grad[~mask].any() for name, mask in masks.items())


@pytest.mark.parametrize(
    ("options", "said"),
    [
        ({"density": 0}, r"svite\.density is 0"),
        ({"density": 1.5}, r"svite\.density is 1\.5"),
        ({"density": 0.5, "update_interval": 0}, r"update_interval is 0"),
        ({"density": 0.5, "update_interval": 2.5}, r"update_interval is 2\.5"),
        ({"heads": 0.5}, "only one of heads and neurons"),
        ({"density": 0.5, "pattern": "2:4"}, "exclude each other"),
        ({"pattern": "4:2"}, r"'4:2', which is no n:m"),
        ({"heads": 0.1, "neurons": 0.5}, "Of 4 heads, a share of 0.1 keeps none"),
        ({"tokens": 0.0}, r"svite\.tokens is 0"),
    ],
)
def test_options_that_are_wrong_are_refused(options, said):
    with pytest.raises(UserError, match=said):
        classifier(svite=options)


def test_heads_that_do_not_divide_the_width_are_refused():
    arch = {**svite_models.ARCH, "num_heads": 3}
    with pytest.raises(UserError, match="3 heads, which do not divide its 16 channels"):
        classifier(arch=arch, svite=STRUCTURED)


def test_a_model_without_transformer_blocks_is_refused():
    with pytest.raises(UserError, match="no transformer block"):
        Weights.convert(nn.Linear(3, 3), density=0.5)


@KINDS
def test_in_mixed_precision_masks_are_exact_too(options):
    training = Training(classifier(svite=options), total=10)
    forward = training.model.forward

    def in_bf16(images):
        with torch.autocast("cpu", torch.bfloat16):
            return forward(images)

    training.wrapped = in_bf16
    training.run(8)
    assert training.method.updates == 2
    for name, mask in training.method.masks.items():
        weight = training.model.get_parameter(name)
        assert weight.dtype == torch.float32
        for values in held(training, name, weight).values():
            assert not values[~mask].any()


def test_an_update_waits_for_a_step_that_is_really_taken():
    training = Training(classifier(svite={"density": 0.5, "update_interval": 4}), total=20).run(3)
    before = dict(training.method.masks)
    # the fourth iteration overflows
    training.method.before_step(3)
    images, labels = svite_models.batch(3)
    nn.functional.cross_entropy(training.model(images), labels).backward()
    training.step = 4
    assert training.method.updates == 0
    training.run(1)
    assert training.method.updates == 1
    assert any(not torch.equal(mask, before[n]) for n, mask in training.method.masks.items())
