"""A model at one sparsity, image size and batch as a graph: what other runtimes are given."""

from __future__ import annotations

import contextlib
import copy
import io
import logging
import warnings
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass, field
from typing import Any

import torch
from torch import Tensor, nn

from sparsevit.methods import exported_form
from sparsevit.sparsity.handle import sparse_parts

INPUT = "images"
CPU = torch.device("cpu")


@dataclass(frozen=True)
class Graph:
    """What runtimes are given.

    Attributes:
        program: the forward, with every size in it fixed.
        inputs, outputs: their names, in order.
        sparse: whether the graph itself decides what is skipped, by scores.
        translations: operations of ours in it -> ONNX's in their place, which every runtime is then
            given.
    """

    program: torch.export.ExportedProgram
    inputs: tuple[str, ...]
    outputs: tuple[str, ...]
    sparse: bool = False
    translations: Mapping[Callable[..., Any], Callable[..., Any]] = field(default_factory=dict)


Export = Callable[[], Graph]
"""Makes a graph, once it is known that it can be written."""

Call = Callable[..., list[Tensor]]
"""Runs a graph: a tensor for each input, in order -> its outputs."""


def backbone_graph(backbone: nn.Module, images: Tensor) -> Graph:
    """The forward of a backbone in evaluation mode.

    Scores, top-k and gathers are part of the graph; which windows it keeps is decided when it runs,
    how many is not. Partitions and masks are constants. One that is not on the CPU is exported from
    a copy there, as the graph is the same.

    Args:
        backbone: in evaluation mode, at the sparsity to export.
        images: (B, 3, H, W) of the size to export.
    """
    if images.device != CPU:
        backbone, images = copy.deepcopy(backbone).to(CPU), images.to(CPU)
    program = export_program(exported_form(backbone), images)
    count = len(program.graph_signature.user_outputs)
    names = tuple(output_names(backbone, count))
    return Graph(program, (INPUT,), names, sparse=bool(sparse_parts(backbone)))


def export_program(module: nn.Module, *inputs: Tensor) -> torch.export.ExportedProgram:
    """The forward of a module on inputs of this size, which are fixed in it."""
    with torch.no_grad(), quiet_exporters():
        # once eagerly, so that the tables that are kept for this size are there: as tensors made
        # amid an export they would be no proper constants to what decomposes the graph
        module(*inputs)
        return torch.export.export(module, inputs, strict=False)


def output_names(backbone: nn.Module, count: int) -> list[str]:
    """``stage0`` and so on: by the stages that give a map out, where the backbone says which."""
    stages = getattr(backbone, "out_indices", range(count))
    # of a class token and another one, both are of one stage
    named = stages if len(stages) == count else range(count)
    return [f"stage{index}" for index in named]


@contextlib.contextmanager
def quiet_exporters() -> Iterator[None]:
    """Neither prints nor warnings of exporters about themselves."""
    loggers = [logging.getLogger(name) for name in ("torch.onnx", "onnxscript")]
    levels = [logger.level for logger in loggers]
    for logger in loggers:
        logger.setLevel(logging.ERROR)
    try:
        with warnings.catch_warnings(), contextlib.redirect_stdout(io.StringIO()):
            warnings.simplefilter("ignore")
            yield
    finally:
        for logger, level in zip(loggers, levels, strict=True):
            logger.setLevel(level)
