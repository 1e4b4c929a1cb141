"""The backbone as a module among others: how it is built, set, copied, trained and looked into."""

from __future__ import annotations

import copy
import pickle

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from mmdet.registry import MODELS
from mmdet_backbones import make_pair, small_swin
from mmengine.registry import DefaultScope
from torch.utils._python_dispatch import TorchDispatchMode

from sparsevit.latency.cost import gmacs
from sparsevit.methods.windows.forward import Stage
from sparsevit.sparsity.configuration import ConfigurationError

SPARSE = [[0.6, 0.6], [0.0, 0.3], [0.5, 0.5], [0.2, 0.2]]


def images(batch=2, size=(96, 128), seed=0):
    return torch.randn(batch, 3, *size, generator=torch.Generator().manual_seed(seed))


def largest_difference(a, b):
    return max((x.float() - y.float()).abs().max().item() for x, y in zip(a, b, strict=True))


def trained_once(model, x):
    """Gradients by name after one backward of a fixed loss."""
    model.train()
    model.zero_grad()
    sum(out.float().square().mean() for out in model(x)).backward()
    return {k: p.grad.clone() for k, p in model.named_parameters() if p.grad is not None}


# --- in place of mmdet's Swin --------------------------------------------------------------------

SIZES = {
    "T": {"embed_dims": 96, "depths": [2, 2, 6, 2], "num_heads": [3, 6, 12, 24]},
    "S": {"embed_dims": 96, "depths": [2, 2, 18, 2], "num_heads": [3, 6, 12, 24]},
    "B": {"embed_dims": 128, "depths": [2, 2, 18, 2], "num_heads": [4, 8, 16, 32]},
    "L": {
        "embed_dims": 192,
        "depths": [2, 2, 18, 2],
        "num_heads": [6, 12, 24, 48],
        "window_size": 12,
        "pretrain_img_size": 384,
    },
}


@pytest.mark.parametrize("size", SIZES)
def test_every_swin_has_the_keys_and_shapes_of_mmdets(size, monkeypatch):
    linspace = torch.linspace
    # mmdet reads the rates of stochastic depth off a tensor, which a meta one has none to give
    monkeypatch.setattr(torch, "linspace", lambda *a: linspace(*a, device="cpu"))
    with torch.device("meta"), DefaultScope.overwrite_default_scope("mmdet"):
        sparse = MODELS.build({"type": "SparseViT", "use_abs_pos_embed": True, **SIZES[size]})
        swin = MODELS.build({"type": "SwinTransformer", "use_abs_pos_embed": True, **SIZES[size]})
    ours = {k: v.shape for k, v in sparse.state_dict().items()}
    assert ours == {k: v.shape for k, v in swin.state_dict().items()}


def test_weights_load_strictly_both_ways():
    sparse, swin = make_pair()
    swin.load_state_dict(sparse.state_dict(), strict=True)
    sparse.pruning_ratios = 0.5
    assert sparse.state_dict().keys() == swin.state_dict().keys()


@pytest.mark.parametrize("frozen_stages", [-1, 0, 1, 3])
def test_frozen_stages_freeze_what_mmdet_freezes(frozen_stages):
    kwargs = {"frozen_stages": frozen_stages, "use_abs_pos_embed": True, "pretrain_img_size": 96}
    sparse, swin = make_pair(**kwargs)
    assert sparse.train() is sparse
    swin.train()
    assert {k: p.requires_grad for k, p in sparse.named_parameters()} == {
        k: p.requires_grad for k, p in swin.named_parameters()
    }
    assert {k: m.training for k, m in sparse.named_modules()} == {
        k: m.training for k, m in swin.named_modules()
    }
    sparse.pruning_ratios = SPARSE
    grads = trained_once(sparse, images(size=(96, 96)))
    assert not [k for k in grads if not sparse.get_parameter(k).requires_grad]


def test_train_and_eval_return_the_model():
    sparse = small_swin("SparseViT", frozen_stages=1)
    assert sparse.eval() is sparse
    assert sparse.train() is sparse
    assert sparse.train(False) is sparse
    assert not sparse.training


def test_absolute_position_embedding_equals_mmdets_at_the_size_of_pretraining():
    sparse, swin = make_pair(use_abs_pos_embed=True, pretrain_img_size=96)
    with torch.no_grad():
        x = images(size=(96, 96))
        assert largest_difference(sparse(x), swin(x)) < 1e-5


@pytest.mark.parametrize("size", [(128, 96), (64, 160), (101, 77)])
def test_absolute_position_embedding_is_resized_to_another_size(size):
    sparse = small_swin("SparseViT", use_abs_pos_embed=True, pretrain_img_size=(96, 128))
    with torch.no_grad():
        outs = sparse(images(size=size))
    assert outs[0].shape[-2:] == (-(-size[0] // 4), -(-size[1] // 4))
    assert all(out.isfinite().all() for out in outs)


@pytest.mark.parametrize("depths", [[1, 3, 2, 1], [1, 1, 1, 1], [3, 1, 5, 2]])
def test_stages_of_odd_depth_work(depths):
    sparse, swin = make_pair(depths=depths)
    x = images(size=(70, 90))
    with torch.no_grad():
        assert largest_difference(sparse(x), swin(x)) < 1e-5
        sparse.set_sparsity(sparse.sparsity_space().uniform(0.5))
        assert [len(stage) for stage in sparse.pruning_ratios] == depths
        assert all(out.isfinite().all() for out in sparse(x))


# --- ratios --------------------------------------------------------------------------------------


def test_a_wrong_ratio_is_refused_and_changes_nothing():
    sparse = small_swin("SparseViT", pruning_ratios=SPARSE)
    with pytest.raises(ConfigurationError, match=r"1\.2"):
        sparse.pruning_ratios = 1.2
    with pytest.raises(ConfigurationError):
        sparse.pruning_ratios = [0.1, 0.2]
    assert sparse.pruning_ratios == SPARSE
    with pytest.raises(ConfigurationError, match="4 stages"):
        small_swin("SparseViT", pruning_ratios=[0.1])


def test_the_ratios_that_are_read_are_a_copy():
    sparse = small_swin("SparseViT", pruning_ratios=SPARSE)
    sparse.pruning_ratios[0][0] = 0.9
    assert sparse.pruning_ratios == SPARSE


def test_what_is_set_is_what_is_got():
    sparse = small_swin("SparseViT", depths=[2, 2, 6, 2])
    space = sparse.sparsity_space()
    names = ["stages.0", "stages.1", "stages.2_1", "stages.2_2", "stages.2_3", "stages.3"]
    assert list(space.names) == names
    wanted = space.validate(dict(zip(names, [0.6, 0, 0.2, 0.4, 0.5, 0], strict=True)))
    sparse.set_sparsity(wanted)
    assert sparse.get_sparsity() == wanted
    assert sparse.pruning_ratios == [
        [0.6] * 2,
        [0.0] * 2,
        [0.2, 0.2, 0.4, 0.4, 0.5, 0.5],
        [0.0] * 2,
    ]


def test_a_search_may_be_given_other_choices():
    sparse = small_swin("SparseViT", sparsity_choices=[0.0, 0.25, 0.5])
    assert sparse.sparsity_space().max()["stages.0"] == 0.5


@settings(max_examples=25, deadline=None)
@given(ratio=st.floats(0, 0.99), batch=st.integers(1, 3), seed=st.integers(0, 1000))
def test_tokens_of_windows_that_a_stage_skips_pass_unchanged(ratio, batch, seed):
    sparse = small_swin("SparseViT")
    kept_windows = int(16 * (1 - ratio))
    x = images(batch, (112, 112), seed)
    with torch.no_grad():
        tokens, hw = sparse.patch_embed(x)
        before = tokens.clone()
        sparse.pruning_ratios = [[ratio, 0.999], 0, 0, 0]
        with sparse.record_selections() as seen:
            after = sparse._forward_stage(0, tokens, hw)
    assert seen[0].grid == (4, 4)
    unchanged = (after == before).all(-1).view(batch, 4, 7, 4, 7).all(4).all(2).flatten(1)
    kept = torch.zeros(batch, 16, dtype=torch.bool)
    if seen[0].kept_BK is None:
        assert kept_windows == 16
        kept[:] = True
    else:
        assert seen[0].kept_BK.shape == (batch, kept_windows)
        kept.scatter_(1, seen[0].kept_BK, True)
    assert (unchanged == ~kept).all()


def test_a_block_that_keeps_no_window_is_skipped_and_gets_no_gradient():
    sparse = small_swin("SparseViT", pruning_ratios=[[0.5, 0.5], 0, 0, [0.95, 0.95]])
    x = images(size=(96, 96))
    grads = trained_once(sparse, x)
    assert not [k for k in grads if k.startswith("stages.3.blocks")]
    assert {k.split(".")[1] for k in grads if ".blocks." in k} == {"0", "1", "2"}
    with torch.no_grad(), sparse.eval().record_selections() as seen:
        sparse(x)
    assert [s.kept_BK.shape for s in seen if s.stage == 3] == [(2, 0), (2, 0)]


def test_record_selections_tells_what_each_block_kept():
    sparse = small_swin("SparseViT", pruning_ratios=SPARSE)
    with torch.no_grad(), sparse.record_selections() as seen:
        sparse(images(size=(112, 168)))
    assert [(s.stage, s.block) for s in seen] == [(i, j) for i in range(4) for j in range(2)]
    assert [s.shift for s in seen] == [0, 3] * 4
    assert seen[0].grid == (4, 6)
    assert seen[0].kept_BK.shape == (2, int(24 * (1 - 0.6)))
    assert seen[2].kept_BK is None
    with torch.no_grad():
        sparse(images())
    assert len(seen) == 8


def test_a_selection_is_of_different_windows_and_a_prefix_of_the_stages_ranking():
    ratios = [[0.3, 0.3, 0.6, 0.6], 0, 0, 0]
    sparse = small_swin("SparseViT", depths=[4, 2, 2, 2], pruning_ratios=ratios)
    with torch.no_grad(), sparse.record_selections() as seen:
        sparse(images(3, (168, 168)))
    for few, many in ((seen[2], seen[0]), (seen[3], seen[1])):
        count = few.kept_BK.shape[1]
        assert (few.kept_BK == many.kept_BK[:, :count]).all()
        assert all(row.unique().numel() == count for row in few.kept_BK)


# --- cost ----------------------------------------------------------------------------------------


class Operations(TorchDispatchMode):
    """Every op that runs inside, with the size of the largest tensor it makes."""

    def __init__(self):
        super().__init__()
        self.seen = []

    def __torch_dispatch__(self, func, types, args=(), kwargs=None):
        out = func(*args, **(kwargs or {}))
        made = out if isinstance(out, (tuple, list)) else [out]
        sizes = [t.numel() for t in made if isinstance(t, torch.Tensor)]
        self.seen.append((func.overloadpacket.__name__, max(sizes, default=0), func.is_view))
        return out


def test_no_block_touches_the_whole_map(monkeypatch):
    sparse = small_swin("SparseViT", pruning_ratios=0.8)
    operations, maps = Operations(), []
    run = Stage.run

    def watched(self, i, tokens):
        maps.append(tokens.x_RC.numel())
        self.kept(i, tokens)  # scoring reads the map once a stage
        with operations:
            return run(self, i, tokens)

    with torch.no_grad():
        sparse(images(1, (224, 224)))
        monkeypatch.setattr(Stage, "run", watched)
        sparse.pruning_ratios = [[0.8, 0.8], 0.99, 0.99, 0.99]
        sparse(images(1, (224, 224)))
    assert maps[0] == 56 * 56 * 16
    names = {name for name, _, _ in operations.seen}
    assert not names & {"roll", "constant_pad_nd", "pad"}
    large = {name for name, size, view in operations.seen if size >= maps[0] and not view}
    # it writes into the map and gives it back
    assert large == {"index_copy_"}


def test_multiplications_fall_with_the_ratio():
    sparse = small_swin("SparseViT")
    x = images(1, (224, 224))

    def cost(*ratios):
        sparse.pruning_ratios = ratios
        return gmacs(lambda: sparse(x))

    whole = [cost(*[ratio] * 4) for ratio in (0.0, 0.2, 0.4, 0.6, 0.8)]
    assert whole == sorted(whole, reverse=True)
    # 64 windows in the first stage, of which none is left at 0.999
    blocks = cost(0, 0, 0, 0) - cost(0.999, 0, 0, 0)
    assert cost(0.75, 0, 0, 0) - cost(0.999, 0, 0, 0) == pytest.approx(blocks / 4)


# --- as any module -------------------------------------------------------------------------------


def test_a_deep_copy_is_independent():
    sparse = small_swin("SparseViT", pruning_ratios=SPARSE)
    other = copy.deepcopy(sparse)
    other.pruning_ratios = 0.0
    assert sparse.pruning_ratios == SPARSE
    other.pruning_ratios = SPARSE
    with torch.no_grad():
        assert largest_difference(sparse(images()), other(images())) == 0


def test_a_pickled_backbone_works_after_it_has_run():
    sparse = small_swin("SparseViT", pruning_ratios=SPARSE)
    with torch.no_grad():
        expected = sparse(images())
        again = pickle.loads(pickle.dumps(sparse))
        assert again.pruning_ratios == SPARSE
        assert largest_difference(again(images()), expected) == 0


@pytest.mark.parametrize("size", [(112, 112), (100, 92)])
def test_training_works_at_a_size_first_seen_in_inference_mode(size):
    size = (size[0] + 28, size[1] + 56)
    sparse = small_swin("SparseViT", pruning_ratios=[[0.0, 0.5], 0, 0.3, 0])
    with torch.inference_mode():
        sparse(images(size=size))
    grads = trained_once(sparse, images(size=size))
    assert grads.keys() == dict(sparse.named_parameters()).keys()
    assert all(g.isfinite().all() for g in grads.values())


def test_a_layer_may_run_on_a_map_that_needs_no_gradient():
    sparse = small_swin("SparseViT", frozen_stages=2, pruning_ratios=SPARSE, with_cp=True)
    grads = trained_once(sparse, images())
    assert any(k.startswith("stages.2") for k in grads)


@pytest.mark.parametrize("ratios", [0.0, SPARSE], ids=["dense", "sparse"])
def test_checkpointed_blocks_give_the_same_gradients(ratios):
    torch.manual_seed(0)
    plain = small_swin("SparseViT", pruning_ratios=ratios, drop_path_rate=0.0)
    saving = small_swin("SparseViT", pruning_ratios=ratios, drop_path_rate=0.0, with_cp=True)
    saving.load_state_dict(plain.state_dict())
    expected, got = (trained_once(m, images(size=(90, 90))) for m in (plain, saving))
    assert expected.keys() == got.keys()
    assert max((expected[k] - got[k]).abs().max() for k in got) < 1e-5


@pytest.mark.parametrize("dtype", [torch.bfloat16, torch.float16], ids=["bf16", "fp16"])
@pytest.mark.parametrize("with_cp", [False, True])
def test_mixed_precision_comes_close_and_trains(dtype, with_cp):
    torch.manual_seed(0)
    sparse = small_swin("SparseViT", pruning_ratios=[[0.5, 0.5], 0, 0.3, 0], with_cp=with_cp)
    x = images(size=(100, 112))
    with torch.no_grad(), sparse.record_selections() as seen:
        expected = sparse(x)
    kept = [s.kept_BK for s in seen]
    with torch.no_grad(), torch.autocast("cpu", dtype), sparse.record_selections() as seen:
        outs = sparse(x)
    chosen = kept[0].tolist(), seen[0].kept_BK.tolist()
    # the first stage is scored on what one convolution made: hardly a window changes its place
    same = [len(set(a) & set(b)) / len(a) for a, b in zip(*chosen, strict=True)]
    assert min(same) > 0.8
    scale = max(o.abs().max().item() for o in expected)
    error = [(a.float() - b).abs().mean().item() for a, b in zip(outs, expected, strict=True)]
    assert max(error) < 0.05 * scale
    with torch.autocast("cpu", dtype):
        grads = trained_once(sparse, x)
    assert all(g.isfinite().all() and g.dtype == torch.float32 for g in grads.values())


def test_a_traced_shape_is_no_shape_for_another_size():
    """Layouts are cached by size: images of another size, batch or order get their own."""
    sparse = small_swin("SparseViT", pruning_ratios=SPARSE)
    with torch.no_grad():
        first = sparse(images(2, (96, 128)))
        sparse(images(1, (128, 96)))
        sparse(images(3, (96, 128)))
        assert largest_difference(sparse(images(2, (96, 128))), first) == 0
