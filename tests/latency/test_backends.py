"""Every backend gives what eager gives, at any ratio; compiled graphs serve all ratios."""

from __future__ import annotations

import logging
import os
import shutil
import sys

import pytest
import tiny
import torch
from mmdet_backbones import small_swin
from torch._dynamo.testing import CompileCounter

from sparsevit.cli.options import Backend
from sparsevit.errors import UserError
from sparsevit.latency.backends import BACKENDS, aot_inductor, prepare
from sparsevit.latency.backends.aot_inductor import check_pt2, load_pt2, write_pt2
from sparsevit.latency.backends.graph import backbone_graph, quiet_exporters
from sparsevit.models.forms import compiled, compiled_pieces
from sparsevit.ops.native import swin

PACKAGES = {"onnxruntime": ("onnx", "onnxscript", "onnxruntime"), "openvino": ("openvino",)}
TWO_STAGES = {"depths": [2, 2], "num_heads": [1, 2], "strides": [4, 2], "out_indices": [0, 1]}
# no multiple of the window: padding takes part
SIZE = (160, 224)


@pytest.fixture
def images():
    return torch.randn(2, 3, *SIZE, generator=torch.Generator().manual_seed(0))


@pytest.fixture
def backbone():
    torch.manual_seed(0)
    return small_swin("SparseViT", **TWO_STAGES)


@pytest.fixture
def _fresh_dynamo():
    torch._dynamo.reset()
    yield
    torch._dynamo.reset()


def difference(got, expected):
    assert len(got) == len(expected)
    return max((a - b).abs().max().item() for a, b in zip(got, expected, strict=True))


@pytest.mark.parametrize("name", PACKAGES)
def test_a_runtime_gives_what_eager_gives(name, backbone, images):
    for package in PACKAGES[name]:
        pytest.importorskip(package)
    # an export takes seconds: one with a dense and a sparse stage shows both
    backbone.pruning_ratios = ratio = [0.0, 0.6]
    expected = prepare("eager", backbone, images)(images)
    run = prepare(name, backbone, images)
    backbone.pruning_ratios = 0.3
    assert difference(run(images), expected) < 1e-4
    # another image, so that other windows are kept
    other = images.flip(-1) * torch.linspace(0.1, 2, SIZE[1])
    backbone.pruning_ratios = ratio
    assert difference(run(other), prepare("eager", backbone, other)(other)) < 1e-4


@pytest.mark.usefixtures("_fresh_dynamo")
@pytest.mark.parametrize("frozen", [False, True])
@pytest.mark.parametrize("native", [False, True])
def test_changing_ratios_makes_no_new_graph(frozen, native, backbone, images, monkeypatch):
    native = native and swin.usable()
    monkeypatch.setattr(swin, "usable", lambda: native)
    counter = CompileCounter()
    twin = compiled(backbone, compiled_pieces(frozen, backend=counter))
    with torch.no_grad():
        for ratio in (0.0, 0.8):
            backbone.pruning_ratios = twin.pruning_ratios = ratio
            assert difference(twin(images), backbone(images)) < 1e-5
        made = counter.frame_count
        for ratio in (0.1, 0.3, [0.0, 0.5], [0.6, 0.2], 0.7):
            backbone.pruning_ratios = twin.pruning_ratios = ratio
            assert difference(twin(images), backbone(images)) < 1e-5
    assert counter.frame_count == made
    # magnitudes of two stages
    scores = 2
    # embedding, merging, two maps; a stage has plain and shifted windows, and where few are kept
    # shifted ones that may all lie at an edge
    rest = 1 + 1 + 2 + 2 * 3
    assert made == scores + (0 if frozen and native else rest)


@pytest.mark.usefixtures("_fresh_dynamo")
@pytest.mark.parametrize("frozen", [False, True])
def test_blocks_of_a_stage_share_their_graphs(frozen, images, monkeypatch):
    monkeypatch.setattr(swin, "usable", lambda: False)
    counts = []
    for depth in (2, 4):
        torch._dynamo.reset()
        counter = CompileCounter()
        deep = small_swin("SparseViT", **{**TWO_STAGES, "depths": [depth, 2]})
        with torch.no_grad():
            compiled(deep, compiled_pieces(frozen, backend=counter))(images)
        counts.append(counter.frame_count)
    assert counts[0] == counts[1]


@pytest.mark.usefixtures("_fresh_dynamo")
def test_a_compiled_backbone_trains_like_the_eager_one(backbone, images):
    twin = compiled(backbone, compiled_pieces(backend="aot_eager"))
    gradients = []
    for model in (backbone, twin):
        model.pruning_ratios = 0.4
        backbone.zero_grad()
        sum(out.square().mean() for out in model(images)).backward()
        gradients.append([p.grad.clone() for p in backbone.parameters() if p.grad is not None])
    assert len(gradients[0]) == len(gradients[1]) > 0
    for got, expected in zip(*gradients, strict=True):
        torch.testing.assert_close(got, expected, rtol=1e-4, atol=1e-6)


@pytest.mark.skipif(shutil.which(os.environ.get("CXX", "g++")) is None, reason="no C++ compiler")
def test_a_pt2_package_gives_what_eager_gives(tmp_path):
    small = small_swin(
        "SparseViT", depths=[2], num_heads=[1], strides=[4], out_indices=[0], pruning_ratios=0.6
    )
    images = torch.randn(1, 3, *SIZE)
    path = write_pt2(lambda: backbone_graph(small, images), tmp_path / "small.pt2")
    run = load_pt2(path, "fp32", torch.device("cpu"))
    other = torch.randn(1, 3, *SIZE) * torch.linspace(0.1, 2, SIZE[1])
    assert difference(run(other), prepare("eager", small, other)(other)) < 1e-4


@pytest.mark.parametrize("bare", [True, False])
def test_the_only_output_of_a_package_is_given_whole(bare, tmp_path, monkeypatch):
    logits = torch.ones(2, 4, 8, 8)
    package = lambda images: logits if bare else (logits,)  # noqa: E731
    monkeypatch.setattr(aot_inductor, "_inductor", lambda name: lambda path: package)
    (output,) = load_pt2(tmp_path / "m.pt2", "fp32", torch.device("cpu"))(torch.ones(1))
    assert output.shape == logits.shape


def test_exporters_are_quiet_about_themselves_and_only_then():
    one = logging.getLogger("onnxscript.optimizer._constant_folding")
    with quiet_exporters():
        assert not one.isEnabledFor(logging.WARNING)
    assert one.isEnabledFor(logging.WARNING)


def test_without_a_compiler_nothing_is_compiled(backbone, images, monkeypatch):
    monkeypatch.setenv("CXX", "no-such-compiler")
    for compile_something in (check_pt2, lambda: prepare("compile", backbone, images)):
        with pytest.raises(UserError, match="no-such-compiler") as caught:
            compile_something()
        assert "g++" in caught.value.remedy


def test_a_compiled_backbone_has_ratios_of_its_own(backbone):
    twin = compiled(backbone, compiled_pieces(backend="eager"))
    twin.pruning_ratios = 0.5
    assert backbone.pruning_ratios[0] == [0.0, 0.0]
    assert twin.stages[0].blocks[0] is backbone.stages[0].blocks[0]


def test_what_was_prepared_stays_at_its_sparsity(backbone, images):
    dense = prepare("eager", backbone, images)
    expected = dense(images)
    backbone.pruning_ratios = 0.6
    assert difference(dense(images), expected) == 0


@pytest.mark.usefixtures("_fresh_dynamo")
def test_an_export_of_a_size_never_seen_leaves_nothing_behind(backbone):
    """Layouts are kept for reuse; those made while exporting must serve the eager forward too."""
    images = torch.randn(1, 3, 96, 288)
    backbone.pruning_ratios = 0.5
    with torch.no_grad():
        graph = torch.export.export(backbone, (images,)).module()
        assert difference(graph(images), backbone(images)) < 1e-5


@pytest.mark.parametrize("name", PACKAGES)
def test_a_runtime_that_is_not_installed_names_its_extra(name, backbone, images, monkeypatch):
    for package in PACKAGES[name]:
        monkeypatch.setitem(sys.modules, package, None)
    with pytest.raises(UserError) as caught:
        prepare(name, backbone, images)
    assert "pip install 'sparsevit[" in caught.value.remedy


def test_the_command_line_offers_every_backend():
    assert [backend.value for backend in Backend] == list(BACKENDS)


@pytest.mark.parametrize(
    ("wrong", "says"),
    [
        ({"name": "tensorflow"}, "eager, compile, onnxruntime, openvino, tensorrt"),
        ({"name": "eager", "precision": "int8"}, "fp32, fp16, bf16"),
    ],
)
def test_what_there_is_not_says_what_there_is(wrong, says, backbone, images):
    with pytest.raises(UserError, match=says):
        prepare(**{"backbone": backbone, "images": images, **wrong})


def test_onnxruntime_refuses_other_precisions(backbone, images):
    pytest.importorskip("onnxruntime")
    with pytest.raises(UserError, match="fp32"):
        prepare("onnxruntime", backbone, images, "bf16")


def test_scores_are_left_out_where_openvino_rounds_tokens(backbone, images):
    pytest.importorskip("openvino")
    from sparsevit.latency.backends.open_vino import convert, round_tokens

    backbone.pruning_ratios = 0.6
    model = convert(backbone_graph(backbone, images))
    round_tokens(model)
    marked = {
        op.get_type_name()
        for op in model.get_ops()
        if "enforceBF16evenForGraphTail" in op.get_rt_info()
    }
    assert {"MatMul", "MVN", "Add", "ScatterNDUpdate", "Transpose"} <= marked
    assert not {"ReduceL1", "ReduceL2", "TopK"} & marked


@pytest.mark.parametrize("ratio", [0.0, [0.0, 0.6]])
def test_openvino_in_bf16_is_as_exact_as_autocast(ratio, backbone):
    openvino = pytest.importorskip("openvino")
    if "BF16" not in openvino.Core().get_property("CPU", "OPTIMIZATION_CAPABILITIES"):
        pytest.skip("no bf16 here")
    backbone.pruning_ratios = ratio
    images = torch.randn(1, 3, 112, 112, generator=torch.Generator().manual_seed(1))
    exact, autocast, rounded = (
        prepare(name, backbone, images, precision=precision)(images)
        for name, precision in (("eager", "fp32"), ("eager", "bf16"), ("openvino", "bf16"))
    )

    def error(got):
        distance = [
            (a.float() - b).norm(dim=1) / b.norm(dim=1) for a, b in zip(got, exact, strict=True)
        ]
        return max(one.median().item() for one in distance)

    assert 0 < error(rounded) < 1.5 * error(autocast) < 0.05


def test_openvino_refuses_other_devices(backbone, images):
    pytest.importorskip("openvino")
    with pytest.raises(UserError, match="--device cpu"):
        prepare("openvino", backbone, images, device=torch.device("cuda"))


def test_a_dense_peer_is_taken_too(images):
    swin = small_swin("SwinTransformer", **TWO_STAGES)
    with torch.no_grad():
        expected = list(swin(images))
    assert difference(prepare("eager", swin, images)(images), expected) == 0


def test_latency_takes_a_backend_and_says_which(tiny_config, tmp_path):
    pytest.importorskip("openvino")
    words = ("--img-size", 64, "--batch-size", 1, "--repeats", 1, "--warmup", 0)
    done = tiny.run(
        *("latency", tiny_config, "--workspace", tmp_path, "--backend", "openvino"),
        *("--set", "model.backbone.pruning_ratios=0.5", *words, "--json"),
    )
    assert done.code == 0, done.err
    assert done.document["backend"] == "openvino"
    assert [row["name"] for row in done.document["rows"]] == ["sparse"]
