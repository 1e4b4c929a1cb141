"""Graphs of a backbone: which are kept, which go, and on a GPU that a replay is the forward."""

from __future__ import annotations

import gc
import weakref

import pytest
import torch
from torch import nn

from sparsevit.latency.cuda_graphs import GraphedBackbone

needs_cuda = pytest.mark.skipif(not torch.cuda.is_available(), reason="there is no CUDA device")


class Backbone(nn.Module):
    """Scales its input; a ratio is all that can be set."""

    def __init__(self):
        super().__init__()
        self.scale = nn.Parameter(torch.tensor(2.0))
        self.ratio = 0.0

    def get_sparsity(self):
        return (self.ratio,)

    def forward(self, images):
        return [images * self.scale, images + self.ratio]


class Recorder:
    """Stands in for CUDA: counts recordings, and replays into the same tensors each time."""

    def __init__(self):
        self.recorded = []

    def __call__(self, forward, images, watch):
        with watch, torch.no_grad():
            outputs = [output.detach().clone() for output in forward(images)]
        self.recorded.append((tuple(images.shape), images.dtype))

        def replay(new):
            with torch.no_grad():
                for output, fresh in zip(outputs, forward(new), strict=True):
                    output.copy_(fresh)
            return outputs

        return replay


class OnCuda(torch.Tensor):
    """A tensor in the CPU's memory that says it is on a CUDA device."""

    is_cuda = True


def on_cuda(*shape, fill=1.0):
    return torch.full(shape, fill).as_subclass(OnCuda)


@pytest.fixture(autouse=True)
def no_capture(monkeypatch):
    """What CUDA says where it records nothing."""
    monkeypatch.setattr(torch.cuda, "is_current_stream_capturing", lambda: False)


@pytest.fixture
def recorder():
    return Recorder()


@pytest.fixture
def graphed(recorder):
    with torch.no_grad():
        yield GraphedBackbone(Backbone().eval(), capacity=2, record=recorder)


def test_the_second_forward_of_a_kind_is_a_replay(graphed, recorder):
    images = on_cuda(1, 3, 4, 4)
    for _ in range(3):
        outs = graphed(images)
    assert len(recorder.recorded) == 1
    assert torch.equal(outs[0], images * 2)


@pytest.mark.parametrize(
    "change",
    [
        lambda backbone, images: setattr(backbone, "ratio", 0.5) or images,
        lambda backbone, images: setattr(backbone, "rank_over", "batch") or images,
        lambda backbone, images: on_cuda(1, 3, 8, 4),
        lambda backbone, images: images.double(),
        lambda backbone, images: setattr(backbone.scale, "data", torch.tensor(3.0)) or images,
    ],
    ids=["configuration", "rank_over", "shape", "dtype", "moved parameters"],
)
def test_a_forward_is_recorded_anew_for_another(change, graphed, recorder):
    images = on_cuda(1, 3, 4, 4)
    graphed(images)
    graphed(change(graphed.backbone, images))
    assert len(recorder.recorded) == 2


def test_weights_that_are_loaded_need_no_new_graph(graphed, recorder):
    images = on_cuda(1, 3, 4, 4)
    graphed(images)
    graphed.backbone.load_state_dict({"scale": torch.tensor(5.0)})
    assert graphed(images)[0].unique().item() == 5
    assert len(recorder.recorded) == 1


def test_the_graph_used_longest_ago_goes_first(graphed, recorder):
    small, middle, large = (on_cuda(1, 3, side, 4) for side in (2, 4, 8))
    for images in (small, middle, small, large, small):
        graphed(images)
    assert len(graphed) == 2
    assert [shape[2] for shape, _ in recorder.recorded] == [2, 4, 8]
    graphed(middle)
    assert [shape[2] for shape, _ in recorder.recorded] == [2, 4, 8, 4]


def test_a_graph_that_goes_is_let_go(graphed):
    graphed(on_cuda(1, 3, 2, 4))
    (replay,) = graphed._graphs.values()
    alive = weakref.ref(replay)
    del replay
    for side in (4, 8):
        graphed(on_cuda(1, 3, side, 4))
    gc.collect()
    assert alive() is None


def test_clear_forgets_all(graphed, recorder):
    graphed(on_cuda(1, 3, 4, 4))
    graphed.clear()
    assert len(graphed) == 0
    graphed(on_cuda(1, 3, 4, 4))
    assert len(recorder.recorded) == 2


def test_results_outlive_the_next_replay_unless_asked_not_to(recorder):
    one, two = on_cuda(1, 3, 4, 4), on_cuda(1, 3, 4, 4, fill=2.0)
    with torch.no_grad():
        copied = GraphedBackbone(Backbone().eval(), record=recorder)
        first = copied(one)[0]
        copied(two)
        assert first.unique().item() == 2
        bare = GraphedBackbone(Backbone().eval(), record=recorder, copy_outputs=False)
        first = bare(one)[0]
        bare(two)
        assert first.unique().item() == 4


def test_on_a_cpu_it_runs_eagerly(graphed, recorder):
    images = torch.ones(1, 3, 4, 4)
    assert not graphed.can_replay(images)
    assert torch.equal(graphed(images)[0], images * 2)
    assert recorder.recorded == []


def test_in_training_it_runs_eagerly(graphed, recorder):
    graphed.backbone.train()
    graphed(on_cuda(1, 3, 4, 4))
    assert recorder.recorded == []


def test_with_gradients_on_it_runs_eagerly_and_gives_them(graphed, recorder):
    with torch.enable_grad():
        out = graphed(on_cuda(1, 3, 4, 4))[0]
    assert out.requires_grad
    assert recorder.recorded == []


def test_under_autocast_it_runs_eagerly(graphed, recorder):
    before = torch.is_autocast_enabled("cuda")
    torch.set_autocast_enabled("cuda", True)
    try:
        graphed(on_cuda(1, 3, 4, 4))
    finally:
        torch.set_autocast_enabled("cuda", before)
    assert recorder.recorded == []


def test_within_another_recording_it_runs_eagerly(graphed, recorder, monkeypatch):
    monkeypatch.setattr(torch.cuda, "is_current_stream_capturing", lambda: True)
    graphed(on_cuda(1, 3, 4, 4))
    assert recorder.recorded == []


def test_after_training_it_replays_again(graphed, recorder):
    graphed.backbone.train()
    graphed(on_cuda(1, 3, 4, 4))
    graphed.backbone.eval()
    for _ in range(2):
        graphed(on_cuda(1, 3, 4, 4))
    assert len(recorder.recorded) == 1


def test_it_can_be_the_forward_of_the_backbone_it_wraps(recorder):
    backbone = Backbone().eval()
    backbone.forward = GraphedBackbone(backbone, record=recorder)
    images = on_cuda(1, 3, 4, 4)
    with torch.no_grad():
        backbone(images)
        assert torch.equal(backbone(images)[0], images * 2)
    assert len(recorder.recorded) == 1
    assert list(backbone.state_dict()) == ["scale"]


def test_what_the_forward_reads_is_watched_while_it_is_recorded(recorder):
    class Watched(Backbone):
        entered = 0

        def record_selections(self):
            watched = self

            class Watch:
                def __enter__(self):
                    watched.entered += 1
                    return []

                def __exit__(self, *_):
                    return None

            return Watch()

    backbone = Watched().eval()
    graphed = GraphedBackbone(backbone, record=recorder)
    with torch.no_grad():
        graphed(on_cuda(1, 3, 4, 4))
        graphed(on_cuda(1, 3, 4, 4))
    assert backbone.entered == 1


def test_no_room_for_any_graph_is_refused():
    with pytest.raises(ValueError, match="at least one"):
        GraphedBackbone(Backbone(), capacity=0)


@needs_cuda
@pytest.mark.parametrize("mode", [torch.no_grad, torch.inference_mode])
@pytest.mark.parametrize("kernels", ["off", "all"])
def test_a_replay_is_the_forward(monkeypatch, kernels, mode):
    from mmdet_backbones import small_swin

    from sparsevit.ops.windows import all_windows, window_layout

    monkeypatch.setenv("SPARSEVIT_KERNELS", kernels)
    backbone = small_swin("SparseViT").cuda()
    graphed = GraphedBackbone(backbone)
    with mode():
        for ratio in (0.0, 0.5, 0.0):
            backbone.pruning_ratios = [ratio, ratio, 0.0, 0.0]
            images = torch.randn(2, 3, 60, 90, device="cuda")
            expected = backbone(images)
            graphed(torch.randn_like(images))
            # what the graph reads must not live in the caches alone
            all_windows.cache_clear()
            window_layout.cache_clear()
            torch.cuda.empty_cache()
            torch.randn(1 << 22, device="cuda")
            got = graphed(images)
            for a, b in zip(got, expected, strict=True):
                assert torch.allclose(a, b, atol=1e-4)
    assert len(graphed) == 2


@needs_cuda
def test_a_replay_works_in_another_mode_than_the_recording():
    backbone = Backbone().eval().cuda()
    graphed = GraphedBackbone(backbone)
    images = torch.ones(1, 3, 4, 4, device="cuda")
    with torch.inference_mode():
        graphed(images)
    with torch.no_grad():
        assert graphed(images * 2)[0].unique().item() == 4
    assert len(graphed) == 1
