"""Windows of several images ranked together: as many are kept, shared out by their scores."""

from __future__ import annotations

import copy

import pytest
import torch
from frozen_backbones import frozen
from hypothesis import given, settings
from hypothesis import strategies as st
from mmdet_backbones import make_pair, small_swin
from plain_forward import plain_forward

from sparsevit import densify, sparsify
from sparsevit.errors import UserError
from sparsevit.methods.windows.forward import images_ranked_together
from sparsevit.methods.windows.picture import kept_windows
from sparsevit.models.forms import compiled, exported
from sparsevit.ops.native import swin as native

SPARSE = [[0.5, 0.5], [0.0, 0.3], [0.6, 0.6], [0.2, 0.2]]


def images(batch, size=(112, 168), seed=0):
    """Each image some ten times as bright as the one before, so that their windows score apart."""
    x = torch.randn(batch, 3, *size, generator=torch.Generator().manual_seed(seed))
    return x * 10.0 ** torch.arange(-1, batch - 1).view(-1, 1, 1, 1)


def lively(**kwargs):
    """Without the norm that would make all images equally bright."""
    return small_swin("SparseViT", patch_norm=False, **kwargs)


def assert_same(got, expected):
    for one, other in zip(got, expected, strict=True):
        torch.testing.assert_close(one, other, rtol=1e-4, atol=2e-5)


@settings(max_examples=30, deadline=None)
@given(
    rank_over=st.sampled_from(["image", "batch", 2, 3]),
    groups=st.integers(1, 2),
    ratios=st.lists(st.integers(0, 9).map(lambda r: r / 10), min_size=4, max_size=4),
    height=st.integers(29, 150),
    width=st.integers(29, 150),
    seed=st.integers(0, 999),
)
def test_any_number_of_images_ranked_together_equals_the_plain_forward(
    rank_over, groups, ratios, height, width, seed
):
    torch.manual_seed(seed)
    backbone = lively(rank_over=rank_over)
    batch = groups * (rank_over if isinstance(rank_over, int) else 2)
    x = images(batch, (height, width), seed)
    backbone.pruning_ratios = ratios
    together = {"image": 1, "batch": batch}.get(rank_over, rank_over)
    with torch.no_grad():
        expected = plain_forward(backbone, x, backbone.pruning_ratios, together=together)
        assert_same(backbone(x), expected)


@settings(max_examples=30, deadline=None)
@given(ratio=st.floats(0, 0.99), batch=st.integers(1, 5), seed=st.integers(0, 999))
def test_as_many_windows_are_kept_as_image_by_image(ratio, batch, seed):
    backbone = lively(pruning_ratios=[[ratio, ratio], 0, 0, 0])
    x = images(batch, (64, 96), seed)
    totals, shares = [], []
    for backbone.rank_over in ("image", "batch"):
        with torch.no_grad(), backbone.record_selections() as seen:
            backbone(x)
        kept = [seen[1].kept_of(i) for i in range(batch)]
        if kept[0] is None:
            assert int(seen[1].layout.num_windows * (1 - ratio)) == seen[1].layout.num_windows
            return
        assert all(len(set(of_image.tolist())) == len(of_image) for of_image in kept)
        assert all((of_image < seen[1].layout.num_windows).all() for of_image in kept)
        totals.append(sum(map(len, kept)))
        shares.append([len(of_image) for of_image in kept])
    assert totals[0] == totals[1]
    # brighter images have more of them
    assert shares[1] == sorted(shares[1])


def test_the_best_of_the_batch_are_kept():
    backbone = lively(pruning_ratios=[[0.75, 0.75], 0, 0, 0], rank_over="batch")
    with torch.no_grad(), backbone.record_selections() as seen:
        backbone(images(4))
    windows = seen[0].layout.num_windows
    assert [len(seen[0].kept_of(i)) for i in range(4)] == [0, 0, 0, windows]
    assert seen[0].kept_BK.shape == (1, windows)
    assert len(seen[0].windows.row_MN) == windows


@pytest.mark.parametrize("rank_over", ["batch", 6, 2])
def test_one_image_is_ranked_by_itself(rank_over):
    backbone, x = lively(pruning_ratios=SPARSE), images(1)
    with torch.no_grad():
        expected = backbone(x)
        backbone.rank_over = rank_over
        for one, other in zip(backbone(x), expected, strict=True):
            assert torch.equal(one, other)


def test_ratio_zero_is_dense():
    sparse, swin = make_pair()
    sparse.rank_over = "batch"
    with torch.no_grad():
        assert_same(sparse(images(3)), swin(images(3)))


@pytest.mark.parametrize("form", ["native", "exported", "eager blocks", "compiled"])
def test_every_route_gives_what_the_plain_one_gives(form):
    backbone, x = lively(pruning_ratios=SPARSE, rank_over="batch"), images(3)
    if form == "native" and not native.usable():
        pytest.skip("no native code here")
    forms = {
        "native": frozen,
        "exported": exported,
        "eager blocks": copy.copy,
        "compiled": lambda one: compiled(one, compiled_eagerly()),
    }
    twin = forms[form](backbone)
    with torch.no_grad():
        expected = plain_forward(backbone, x, backbone.pruning_ratios, together=3)
        assert_same(twin(x), expected)


def compiled_eagerly():
    from sparsevit.models.forms import compiled_pieces

    return compiled_pieces(backend="eager")


def test_a_graph_that_is_exported_ranks_over_its_batch():
    backbone, x = lively(pruning_ratios=SPARSE, rank_over=2), images(4, (64, 96))
    program = torch.export.export(exported(backbone), (x,), strict=False)
    with torch.no_grad():
        other = images(4, (64, 96), seed=1).flip(0)
        assert_same(program.module()(other), backbone(other))


def test_a_training_step_gives_the_gradients_of_what_was_kept():
    backbone, x = lively(pruning_ratios=SPARSE, rank_over="batch", drop_path_rate=0.0), images(3)
    backbone.train()
    sum(out.square().mean() for out in backbone(x)).backward()
    got = {name: p.grad.clone() for name, p in backbone.named_parameters() if p.grad is not None}
    backbone.zero_grad()
    plain = plain_forward(backbone, x, backbone.pruning_ratios, together=3)
    sum(out.square().mean() for out in plain).backward()
    for name, grad in got.items():
        expected = backbone.get_parameter(name).grad
        torch.testing.assert_close(grad, expected, rtol=1e-3, atol=1e-4, msg=name)


def test_sparsify_ranks_windows_of_other_libraries_together_too():
    swin = small_swin("SwinTransformer", patch_norm=False)
    backbone = lively(rank_over="batch")
    backbone.load_state_dict(swin.state_dict())
    x = images(3)
    assert sparsify(swin, 0.5, rank_over="batch") is swin
    backbone.pruning_ratios = 0.5
    with torch.no_grad():
        assert_same(swin(x), backbone(x))
        # other ratios leave the option as it is
        sparsify(swin, 0.3)
        backbone.pruning_ratios = 0.3
        assert_same(swin(x), backbone(x))
        sparsify(swin, 0.3, rank_over="image")
        backbone.rank_over = "image"
        assert_same(swin(x), backbone(x))
        sparsify(backbone, 0.3, rank_over="batch")
        assert backbone.rank_over == "batch"
    densify(swin)


def test_the_picture_is_of_the_first_image():
    backbone = lively(pruning_ratios=[[0.75, 0.75], 0, 0, 0], rank_over="batch")
    with torch.no_grad():
        kept = kept_windows(backbone, backbone, images(4).flip(0))
        assert kept["backbone.stages.0"][0].all()
        kept = kept_windows(backbone, backbone, images(4))
    assert not kept["backbone.stages.0"][0].any()
    assert kept["backbone.stages.3"][0].all()


@pytest.mark.parametrize("wrong", ["camera", 0, -1, True, None, 2.0])
def test_any_other_option_is_refused(wrong):
    with pytest.raises(UserError, match="rank_over"):
        lively(rank_over=wrong)
    backbone = lively()
    with pytest.raises(UserError, match="rank_over"):
        backbone.rank_over = wrong
    swin = small_swin("SwinTransformer")
    if wrong is not None:
        with pytest.raises(UserError, match="rank_over"):
            sparsify(swin, 0.5, rank_over=wrong)
    assert type(swin.stages[0].blocks[0]) is type(small_swin("SwinTransformer").stages[0].blocks[0])


def test_a_batch_that_is_not_made_of_groups_is_refused():
    assert [images_ranked_together(3, batch) for batch in (1, 2, 3, 6)] == [1, 2, 3, 3]
    backbone = lively(pruning_ratios=0.5, rank_over=2)
    with pytest.raises(UserError, match="batch of 3 images"):
        backbone(images(3))
