"""A stand-in for the ``tensorrt`` package, where there is no NVIDIA GPU.

It has the part of the API that is called, notes what was asked, takes a graph's ONNX for the
engine, and runs it by ONNX Runtime on the addresses that it was given, as TensorRT would. It shows
that the calls fit together; it says nothing of what TensorRT itself makes of a graph.
"""

from __future__ import annotations

import ctypes
import enum
from typing import Any

import numpy as np

__version__ = "0.0.fake"

float32, float16, bfloat16 = "float32", "float16", "bfloat16"
calls: list[tuple[Any, ...]] = []
refuse: list[str] = []


class NetworkDefinitionCreationFlag(enum.IntEnum):
    EXPLICIT_BATCH = 0
    STRONGLY_TYPED = 1


class BuilderFlag(enum.Enum):
    TF32 = enum.auto()


class TensorIOMode(enum.Enum):
    INPUT = enum.auto()
    OUTPUT = enum.auto()


class Logger:
    ERROR = "error"

    def __init__(self, severity: str) -> None:
        self.severity = severity


class Builder:
    def __init__(self, logger: Logger) -> None:
        self.logger = logger

    def create_network(self, flags: int) -> dict[str, bytes]:
        calls.append(("create_network", flags))
        return {}

    def create_builder_config(self) -> BuilderConfig:
        return BuilderConfig()

    def build_serialized_network(self, network: dict[str, bytes], config: BuilderConfig) -> Any:
        return None if "build" in refuse else bytearray(network["onnx"])


class BuilderConfig:
    def clear_flag(self, flag: BuilderFlag) -> None:
        calls.append(("clear_flag", flag))


class OnnxParser:
    def __init__(self, network: dict[str, bytes], logger: Logger) -> None:
        self.network = network
        self.num_errors = 0

    def parse_from_file(self, path: str) -> bool:
        if "parse" in refuse:
            self.num_errors = 1
            return False
        with open(path, "rb") as file:
            self.network["onnx"] = file.read()
        return True

    def get_error(self, index: int) -> str:
        return "In node 3: no importer for FancyOp"


class Runtime:
    def __init__(self, logger: Logger) -> None:
        self.logger = logger

    def deserialize_cuda_engine(self, plan: bytes) -> Engine | None:
        return None if "load" in refuse else Engine(plan)


class Engine:
    def __init__(self, plan: bytes) -> None:
        import onnxruntime

        self.session = onnxruntime.InferenceSession(plan, providers=["CPUExecutionProvider"])
        self.tensors = {one.name: one for one in self.session.get_outputs()}
        # in another order than the outputs' alone, as TensorRT promises none
        self.tensors |= {one.name: one for one in self.session.get_inputs()}
        self.num_io_tensors = len(self.tensors)

    def get_tensor_name(self, index: int) -> str:
        return list(self.tensors)[index]

    def get_tensor_mode(self, name: str) -> TensorIOMode:
        inputs = [one.name for one in self.session.get_inputs()]
        return TensorIOMode.INPUT if name in inputs else TensorIOMode.OUTPUT

    def get_tensor_shape(self, name: str) -> list[int]:
        return list(self.tensors[name].shape)

    def get_tensor_dtype(self, name: str) -> str:
        return {"tensor(float)": float32, "tensor(float16)": float16}[self.tensors[name].type]

    def create_execution_context(self) -> Context:
        return Context(self)


class Context:
    def __init__(self, engine: Engine) -> None:
        self.engine = engine
        self.addresses: dict[str, int] = {}

    def set_tensor_address(self, name: str, address: int) -> bool:
        self.addresses[name] = address
        return True

    def execute_async_v3(self, stream: int) -> bool:
        calls.append(("execute_async_v3", stream))
        if "run" in refuse:
            return False
        session = self.engine.session
        given = {one.name: self._array(one.name) for one in session.get_inputs()}
        names = [one.name for one in session.get_outputs()]
        for name, result in zip(names, session.run(names, given), strict=True):
            self._array(name)[...] = result
        return True

    def _array(self, name: str) -> Any:
        """The memory behind an address, as TensorRT would read and write it."""
        shape = self.engine.get_tensor_shape(name)
        kind = {float32: np.float32, float16: np.float16}[self.engine.get_tensor_dtype(name)]
        count = int(np.prod(shape)) * np.dtype(kind).itemsize
        memory = (ctypes.c_char * count).from_address(self.addresses[name])
        return np.frombuffer(memory, dtype=kind).reshape(shape)
