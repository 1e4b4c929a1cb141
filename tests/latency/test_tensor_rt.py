"""TensorRT: the graphs it is given are valid, and the calls fit together; no GPU is needed."""

from __future__ import annotations

import contextlib
import sys
from types import SimpleNamespace

import fake_tensorrt
import pytest
import tiny
import torch
from mmdet_backbones import small_swin

from sparsevit.errors import UserError
from sparsevit.latency.backends import require_backend, tensor_rt
from sparsevit.latency.backends.graph import backbone_graph

CPU, CUDA = torch.device("cpu"), torch.device("cuda")


@pytest.fixture(scope="module")
def backbone():
    torch.manual_seed(0)
    return small_swin(
        "SparseViT", depths=[2], num_heads=[1], strides=[4], out_indices=[0], pruning_ratios=0.5
    )


@pytest.fixture(scope="module")
def images():
    return torch.randn(1, 3, 64, 96, generator=torch.Generator().manual_seed(0))


@pytest.fixture(scope="module")
def graph(backbone, images, tmp_path_factory):
    """The fp16 graph: what fp32 has and the types beside it."""
    for package in ("onnx", "onnxscript"):
        pytest.importorskip(package)
    path = tmp_path_factory.mktemp("graph") / "backbone.onnx"
    return tensor_rt.typed_onnx(lambda: backbone_graph(backbone, images), path, "fp16")


@pytest.fixture
def trt(monkeypatch):
    """The stand-in, on tensors of the CPU."""
    pytest.importorskip("onnxruntime")
    monkeypatch.setitem(sys.modules, "tensorrt", fake_tensorrt)
    monkeypatch.setattr(fake_tensorrt, "calls", [])
    monkeypatch.setattr(fake_tensorrt, "refuse", [])
    monkeypatch.setattr(torch.cuda, "is_available", lambda: True)
    monkeypatch.setattr(torch.cuda, "device", lambda device: contextlib.nullcontext())
    monkeypatch.setattr(torch.cuda, "current_stream", lambda: SimpleNamespace(cuda_stream=7))
    monkeypatch.setattr(tensor_rt, "require_tensorrt", lambda precision, device: None)
    tensor_rt._logger.cache_clear()
    yield fake_tensorrt
    tensor_rt._logger.cache_clear()


def test_a_graph_in_fp16_has_one_type_a_node_and_agrees_with_eager(backbone, images, graph):
    onnx = pytest.importorskip("onnx")
    runtime = pytest.importorskip("onnxruntime")
    # what strong typing asks for, and TensorRT refuses otherwise
    onnx.checker.check_model(onnx.load(graph), full_check=True)
    types = {one.data_type for one in onnx.load(graph).graph.initializer}
    assert onnx.TensorProto.FLOAT in types
    session = runtime.InferenceSession(str(graph), providers=["CPUExecutionProvider"])
    (got,) = session.run(None, {"images": images.numpy()})
    with torch.no_grad():
        (expected,) = backbone(images)
    assert 0 < (torch.from_numpy(got) - expected).abs().max() < 0.02


def test_an_engine_runs_on_the_memory_of_the_tensors(backbone, images, graph, trt, tmp_path):
    engine = tensor_rt.build_engine(graph, tmp_path / "backbone.engine")
    run = tensor_rt.load_tensorrt(engine, "fp16", CPU)
    with torch.no_grad():
        for given in (images, images.flip(-1)):
            (got,), (expected,) = run(given), backbone(given)
            assert 0 < (got - expected).abs().max() < 0.02
    # each call's maps are its own
    first, second = run(images)[0], run(images.flip(-1))[0]
    assert not torch.equal(first, second)
    assert ("create_network", 1 << trt.NetworkDefinitionCreationFlag.STRONGLY_TYPED) in trt.calls
    assert ("clear_flag", trt.BuilderFlag.TF32) in trt.calls
    assert trt.calls[-1] == ("execute_async_v3", 7)
    with pytest.raises(ValueError, match=r"\(1, 3, 64, 96\)"):
        run(images[..., :64])


@pytest.mark.parametrize("stage", ["parse", "build"])
def test_a_graph_that_tensorrt_does_not_take_says_why(stage, graph, trt, tmp_path):
    trt.refuse.append(stage)
    with pytest.raises(UserError) as caught:
        tensor_rt.build_engine(graph, tmp_path / "backbone.engine")
    assert {"parse": "FancyOp", "build": "its log"}[stage] in caught.value.problem
    assert list(tmp_path.iterdir()) == []


def test_an_engine_of_another_version_says_so(trt, tmp_path):
    trt.refuse.append("load")
    file = tmp_path / "backbone.engine"
    file.write_bytes(b"of another version")
    with pytest.raises(UserError, match=r"0\.0\.fake cannot load"):
        tensor_rt.load_tensorrt(file, "fp32", CPU)


def test_without_the_package_the_extra_is_named(monkeypatch):
    monkeypatch.setitem(sys.modules, "tensorrt", None)
    with pytest.raises(UserError) as caught:
        require_backend("tensorrt", "fp16", CUDA)
    assert "pip install 'sparsevit[tensorrt]'" in caught.value.remedy


def test_without_a_gpu_it_says_so(monkeypatch):
    for package in ("onnx", "onnxscript"):
        pytest.importorskip(package)
    monkeypatch.setitem(sys.modules, "tensorrt", fake_tensorrt)
    monkeypatch.setattr(torch.cuda, "is_available", lambda: False)
    with pytest.raises(UserError, match="NVIDIA GPU"):
        require_backend("tensorrt", "fp16", CUDA)
    monkeypatch.setattr(torch.cuda, "is_available", lambda: True)
    with pytest.raises(UserError, match="not on cpu"):
        require_backend("tensorrt", "fp16", CPU)


@pytest.mark.parametrize("command", ["latency", "export"])
def test_the_commands_refuse_it_where_it_is_not(command, tiny_config, tmp_path, monkeypatch):
    monkeypatch.setitem(sys.modules, "tensorrt", None)
    monkeypatch.chdir(tmp_path)
    asked = {"latency": ("--backend", "tensorrt"), "export": ("--format", "tensorrt")}[command]
    done = tiny.run(command, tiny_config, "--workspace", tmp_path, *asked)
    assert done.code == 2
    assert "sparsevit[tensorrt]" in done.err.replace("\n", "")
    assert tiny.files(tmp_path) == {}
