"""Tokens: chosen by a learned score, and gone where they are not."""

from __future__ import annotations

import pytest
import svite_models
import torch
from svite_models import Training, classifier

import sparsevit.models.svite as svite
from sparsevit.errors import UserError
from sparsevit.methods.weights.tokens import TokenSelector
from sparsevit.sparsity.handle import SparsityHandle


def tokens(batch=3, extra=1, count=20, width=6):
    drawn = torch.Generator().manual_seed(0)
    return torch.randn(batch, extra + count, width, generator=drawn)


def selector(ratio=0.25, extra=1):
    torch.manual_seed(1)
    made = TokenSelector(6, extra)
    made.ratio = ratio
    return made


@pytest.mark.parametrize("extra", [1, 2])
def test_at_inference_the_best_are_kept_in_their_order_with_what_stands_before(extra):
    x, made = tokens(extra=extra), selector(extra=extra).eval()
    out = made(x)
    assert out.shape == (3, extra + 15, 6)
    for image, kept in zip(x, out, strict=True):
        scores = (image[extra:] @ made.weight[0]).tolist()
        best = sorted(sorted(range(20), key=lambda i: -scores[i])[:15])
        wanted = torch.stack([*image[:extra], *(image[extra + i] for i in best)])
        assert torch.equal(kept, wanted)


def test_in_training_tokens_are_left_as_they_are_and_scores_learn():
    x, made = tokens().requires_grad_(), selector().train()
    made.anneal(0.5, 0, 3, 0)
    out = made(x)
    assert out.shape == (3, 16, 6)
    rows = {tuple(row.tolist()) for row in x.detach().flatten(0, 1)}
    assert all(tuple(row.tolist()) in rows for row in out.detach().flatten(0, 1))
    out.square().sum().backward()
    assert made.weight.grad.abs().max() > 0


def test_the_gradient_is_that_of_the_softmax_that_tokens_were_chosen_from():
    x, made = tokens(batch=1).double(), selector().double().train()
    made.anneal(1.0, 0, 0, 0)
    out = made(x)
    # what the same draw gives, written out
    noise = torch.empty(1, 20).exponential_(generator=torch.Generator().manual_seed(made.seed))
    weight = made.weight.detach().clone().requires_grad_()
    scores = (x[0, 1:] @ weight[0] + made.bias.detach()).float()
    soft = ((scores.log_softmax(0) - noise[0].log()) / 0.1).softmax(0)
    kept = soft.topk(15).indices.sort().values
    assert torch.equal(out[0, 1:], x[0, 1:][kept])
    out.sum().backward()
    (x[0, 1:][kept].sum(1).detach() * soft[kept]).sum().backward()
    torch.testing.assert_close(made.weight.grad, weight.grad, rtol=1e-4, atol=1e-6)


def test_draws_follow_from_seed_iteration_and_rank_and_grow_colder():
    x, made = tokens(), selector().train()

    def drawn(*draw):
        made.anneal(0.0, *draw)
        return made(x)

    assert torch.equal(drawn(0, 5, 0), drawn(0, 5, 0))
    for other in ((1, 5, 0), (0, 6, 0), (0, 5, 1)):
        assert not torch.equal(drawn(0, 5, 0), drawn(*other))
    made.anneal(0.0)
    assert made.temperature == 10
    made.anneal(1.0)
    assert made.temperature == pytest.approx(0.1)


def test_at_ratio_0_nothing_is_chosen():
    x = tokens()
    assert selector(ratio=0.0).train()(x) is x


@pytest.mark.parametrize("kind", [svite.SViTE, svite.DistilledSViTE])
def test_blocks_never_see_what_was_dropped(kind):
    model = classifier(kind, svite={"tokens": 0.75})
    seen = []
    for layer in model.backbone.layers:
        layer.register_forward_hook(lambda layer, args, out: seen.append(out.shape[1]))
    images, _ = svite_models.batch(0)
    for mode in (True, False):
        model.train(mode)(images)
    assert set(seen) == {model.backbone.num_extra_tokens + 12}
    SparsityHandle(model).set({"backbone.tokens": 0.5})
    model(images)
    assert seen[-1] == model.backbone.num_extra_tokens + 8


def test_its_weights_are_trained_and_never_pruned():
    options = {"density": 0.5, "tokens": 0.75, "update_interval": 2}
    model = classifier(svite=options)
    first = model.backbone.token_selector.weight.detach().clone()
    training = Training(model, total=10).run(6)
    assert not [name for name in training.method.masks if "token_selector" in name]
    assert (model.backbone.token_selector.weight != first).all()
    assert {n for n in model.state_dict() if "token_selector" in n} == {
        "backbone.token_selector.weight",
        "backbone.token_selector.bias",
    }


def test_a_backbone_that_gives_out_a_map_keeps_all_tokens():
    with pytest.raises(UserError, match="'featmap' needs all of its tokens"):
        svite.SViTE(
            arch=svite_models.ARCH, img_size=16, patch_size=4, out_type="featmap",
            svite={"tokens": 0.5},
        )  # fmt: skip


def test_an_exported_graph_drops_them_too():
    model = classifier(svite={"tokens": 0.75}).eval()
    images, _ = svite_models.batch(0)
    with torch.no_grad():
        program = torch.export.export(model, (images,))
        torch.testing.assert_close(program.module()(images), model(images))
    SparsityHandle(model).set({"backbone.tokens": 0.0})
    assert not torch.allclose(program.module()(images), model(images))
