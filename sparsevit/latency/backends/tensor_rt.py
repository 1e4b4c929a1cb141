"""TensorRT: engines built from our ONNX files, run on PyTorch's CUDA tensors.

Networks are strongly typed, the only kind that TensorRT 11 has: the number format of every product
is written in the graph, by exporting under autocast, and no builder flag chooses it.
"""

from __future__ import annotations

import functools
import os
import tempfile
from pathlib import Path
from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor
from torch.overrides import TorchFunctionMode

from sparsevit.errors import UserError
from sparsevit.latency.backends.base import DTYPES, autocast, require
from sparsevit.latency.backends.graph import INPUT, Call, Export
from sparsevit.latency.backends.onnx_runtime import write_onnx

EXTRA = "tensorrt"
CPU = torch.device("cpu")


def check_tensorrt() -> None:
    """Refuse where no engine can be built or run.

    Raises:
        UserError: tensorrt, onnx or onnxscript is not installed, or there is no CUDA device.
    """
    for package in ("tensorrt", "onnx", "onnxscript"):
        require(package, EXTRA)
    if not torch.cuda.is_available():
        raise UserError(
            "TensorRT needs an NVIDIA GPU, and PyTorch sees no CUDA device here.",
            "Use another backend or format; `sparsevit doctor` shows what is available.",
        )


def require_tensorrt(precision: str, device: torch.device) -> None:
    """Refuse what TensorRT cannot do here.

    Raises:
        UserError: see :func:`check_tensorrt`, or the device is not a CUDA one.
    """
    check_tensorrt()
    if device.type != "cuda":
        raise UserError(
            f"The backend tensorrt runs on CUDA devices, not on {device}.",
            "Use --device cuda, or another backend.",
        )


def typed_onnx(export: Export, path: Path, precision: str) -> Path:
    """Write a graph as ONNX, every product in the type that autocast gives it.

    Args:
        export: makes the graph, on the CPU.
        path: file to write.
        precision: ``fp32``, ``fp16`` or ``bf16``.
    """
    with autocast(precision, CPU), _NormsInFp32():
        return write_onnx(export, path)


class _NormsInFp32(TorchFunctionMode):
    """What autocast does on CUDA, and on the CPU does not: LayerNorm of one type throughout."""

    def __torch_function__(
        self, func: Any, types: Any, args: tuple[Any, ...] = (), kwargs: Any = None
    ) -> Any:
        if func in (F.layer_norm, torch.layer_norm):
            args = (args[0].float(), *args[1:])
        return func(*args, **(kwargs or {}))


def build_engine(onnx_file: Path, engine_file: Path) -> Path:
    """Build an engine for the GPU of this process, which takes minutes.

    Args:
        onnx_file: of :func:`typed_onnx`, all sizes fixed.
        engine_file: to write.

    Raises:
        UserError: TensorRT does not take the graph; with what it says about it.
    """
    trt = require("tensorrt", EXTRA)
    builder = trt.Builder(_logger())
    strongly_typed = 1 << int(trt.NetworkDefinitionCreationFlag.STRONGLY_TYPED)
    network = builder.create_network(strongly_typed)
    parser = trt.OnnxParser(network, _logger())
    if not parser.parse_from_file(os.fspath(onnx_file)):
        raise _not_taken("; ".join(str(parser.get_error(i)) for i in range(parser.num_errors)))
    config = builder.create_builder_config()
    if not torch.backends.cuda.matmul.allow_tf32:
        # on by default there; fp32 means the same in every backend
        config.clear_flag(trt.BuilderFlag.TF32)
    plan = builder.build_serialized_network(network, config)
    if plan is None:
        raise _not_taken("no engine could be built; its log says why")
    engine_file.write_bytes(memoryview(plan))
    return engine_file


def write_tensorrt(export: Export, path: Path, precision: str = "fp32") -> Path:
    """Write a graph as an engine for this GPU and this TensorRT.

    Args:
        export, precision: see :func:`typed_onnx`.
        path: file to write, ``*.engine``.

    Raises:
        UserError: see :func:`check_tensorrt` and :func:`build_engine`.
    """
    check_tensorrt()
    with tempfile.TemporaryDirectory() as folder:
        return build_engine(typed_onnx(export, Path(folder, "model.onnx"), precision), path)


def load_tensorrt(path: Path, precision: str, device: torch.device) -> Call:
    """An engine on a CUDA device. Images and feature maps stay there.

    Args:
        path: file of :func:`build_engine`.
        precision: is in the engine, and only named here.
        device: the CUDA device that the engine was built on, or one of its kind.

    Raises:
        UserError: see :func:`require_tensorrt`, or the engine is another version's or GPU's.
    """
    require_tensorrt(precision, device)
    trt = require("tensorrt", EXTRA)
    with torch.cuda.device(device):
        runtime = trt.Runtime(_logger())
        engine = runtime.deserialize_cuda_engine(path.read_bytes())
        if engine is None:
            raise UserError(
                f"TensorRT {trt.__version__} cannot load {path} here.",
                "An engine works only with one version of TensorRT and one kind of GPU: "
                "build it here.",
            )
        context = engine.create_execution_context()
    names = [engine.get_tensor_name(index) for index in range(engine.num_io_tensors)]
    outputs = [name for name in names if engine.get_tensor_mode(name) == trt.TensorIOMode.OUTPUT]
    wanted = tuple(engine.get_tensor_shape(INPUT))
    shapes = {name: tuple(engine.get_tensor_shape(name)) for name in outputs}
    types = {name: _torch_dtype(trt, engine.get_tensor_dtype(name)) for name in outputs}

    def run(images: Tensor) -> list[Tensor]:
        if tuple(images.shape) != wanted:
            raise ValueError(f"the engine expects images of {wanted}, not {tuple(images.shape)}")
        given = images.to(device, torch.float32).contiguous()
        maps = {
            name: torch.empty(shapes[name], dtype=types[name], device=device) for name in outputs
        }
        with torch.cuda.device(device):
            context.set_tensor_address(INPUT, given.data_ptr())
            for name, out in maps.items():
                context.set_tensor_address(name, out.data_ptr())
            # the stream that made the images and that will read the maps: nothing need wait
            if not context.execute_async_v3(torch.cuda.current_stream().cuda_stream):
                raise RuntimeError("TensorRT could not run the engine; its log says why")
        return list(maps.values())

    # an engine must not outlive the runtime that made it
    run.__dict__["runtime"] = runtime
    return run


def prepare_tensorrt(export: Export, precision: str, device: torch.device) -> Call:
    """Exported to ONNX, built and loaded."""
    with tempfile.TemporaryDirectory() as folder, torch.cuda.device(device):
        path = write_tensorrt(export, Path(folder, "model.engine"), precision)
        return load_tensorrt(path, precision, device)


@functools.lru_cache(maxsize=1)
def _logger() -> Any:
    """One for the process, which TensorRT asks for."""
    trt = require("tensorrt", EXTRA)
    return trt.Logger(trt.Logger.ERROR)


def _torch_dtype(trt: Any, dtype: Any) -> torch.dtype:
    known = {trt.float32: "fp32", trt.float16: "fp16", trt.bfloat16: "bf16"}
    return DTYPES[known[dtype]]


def _not_taken(why: str) -> UserError:
    return UserError(
        f"TensorRT does not support the graph of this model: {why}.",
        "Try a newer tensorrt, or another backend; please report it with `sparsevit doctor`.",
    )
