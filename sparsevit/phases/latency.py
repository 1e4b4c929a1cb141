"""Latency, parameters and multiplications of a model or its backbone."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field

import torch
from torch import nn

from sparsevit.engine.runner import build_model, build_part
from sparsevit.errors import UserError
from sparsevit.latency.cost import gmacs, parameters
from sparsevit.latency.execution import FLAT, PAPER_BATCH, PAPER_IMG_SIZE, Execution
from sparsevit.latency.paired import measure_paired
from sparsevit.latency.timer import Latency
from sparsevit.latency.workload import Workload
from sparsevit.phases.budgets import named_best
from sparsevit.phases.device import device_name, pick_device
from sparsevit.phases.inputs import PathLike, gather_inputs
from sparsevit.phases.sparsity import choose_sparsity
from sparsevit.report.reporter import SILENT, Reporter
from sparsevit.sparsity import Configuration, read_configuration
from sparsevit.sparsity.handle import SparsityHandle
from sparsevit.tasks import Task, task_of
from sparsevit.tasks.detection import Detection
from sparsevit.workspace import Workspace

# SparseViT, section 4.2: its detector's Swin-T.
PAPER_BACKBONE = {
    "type": "SparseViT",
    "embed_dims": 96,
    "depths": [2, 2, 6, 2],
    "num_heads": [3, 6, 12, 24],
    "window_size": 7,
}


@dataclass(frozen=True)
class Row:
    """One configuration and what it costs.

    Attributes:
        name: ``dense`` or ``sparse``.
        sparsity: ratio of every knob.
        latency: milliseconds a batch.
        gmacs: billions of multiply-accumulates really done for a batch.
        speedup: how many times as fast as dense, by the mean; None where dense was not timed.
    """

    name: str
    sparsity: dict[str, float]
    latency: Latency
    gmacs: float
    speedup: float | None


@dataclass(frozen=True)
class LatencyResult:
    """What was timed, where, and how long it takes.

    Attributes:
        subject: for people: which model.
        execution: how it was timed.
        device_name: the hardware.
        torch_threads: CPU threads that PyTorch used.
        parameters: of the scope.
        rows: dense first, where it was compared.
    """

    subject: str
    execution: Execution = field(metadata=FLAT)
    device_name: str
    torch_version: str
    torch_threads: int
    parameters: int
    rows: list[Row]


def latency(
    config: PathLike | None = None,
    *,
    workspace: PathLike | None = None,
    sparsity: PathLike | None = None,
    budget: str | None = None,
    compare: bool = False,
    scope: str = "backbone",
    backend: str = "eager",
    img_size: tuple[int, int] = PAPER_IMG_SIZE,
    batch_size: int = PAPER_BATCH,
    device: str | None = None,
    precision: str = "fp32",
    warmup: int | None = None,
    repeats: int | None = None,
    seconds: float = 10.0,
    overrides: Sequence[str] = (),
    reporter: Reporter = SILENT,
) -> LatencyResult:
    """Time a backbone or a whole model at a sparsity. Weights do not matter to time and are random.

    Args:
        config: path or name; the workspace's last where None, else the paper's Swin-T backbone.
        workspace: directory of the record, which is only read.
        sparsity: file with a configuration; where None that of the config, else the workspace's
            best, else dense.
        budget: take the best that search found for this interval, ``37:42``, instead.
        compare: time the dense model beside it, turn by turn.
        scope: ``backbone`` or ``detector``.
        backend: what executes it, one of :data:`sparsevit.latency.backends.BACKENDS`.
        img_size: (height, width) in pixels.
        batch_size: images a call.
        device: where to run; CUDA if there is any where None.
        precision: ``fp32``, ``fp16`` or ``bf16``.
        warmup, repeats, seconds: see :func:`sparsevit.latency.paired.measure_paired`.
        overrides: config values, ``key=value`` each.
        reporter: is told what was taken.

    Raises:
        UserError: an input is missing or wrong, or a device is not there.
    """
    where = pick_device(device)
    execution = Execution(scope, backend, precision, img_size, batch_size, where).require()
    ws = (
        Workspace.open(workspace, create=False, readonly=True)
        if workspace is not None
        else Workspace.open(None, readonly=True)
    )
    sparsity = named_best(ws, sparsity, budget, reporter)
    task, model, configuration, said = _model(ws, config, sparsity, scope, overrides, reporter)
    workload = Workload(model, execution, task=task)
    handle = workload.handle
    settings = {"sparse" if any(configuration.values()) else "dense": configuration}
    if compare:
        settings = {"dense": handle.space.dense(), **settings}
    calls = {name: workload.at(setting) for name, setting in settings.items()}
    timings = measure_paired(calls, where, warmup=warmup, repeats=repeats, seconds=seconds)
    dense_ms = timings["dense"].mean_ms if "dense" in timings else None
    rows = []
    for name, setting in settings.items():
        handle.set(setting)
        rows.append(
            Row(
                name=name,
                sparsity=setting.to_dict(),
                latency=timings[name],
                gmacs=gmacs(workload, model),
                speedup=dense_ms / timings[name].mean_ms if dense_ms else None,
            )
        )
    return LatencyResult(
        subject=said,
        execution=execution,
        device_name=device_name(where),
        torch_version=torch.__version__,
        torch_threads=torch.get_num_threads(),
        parameters=parameters(workload.timed_part),
        rows=rows,
    )


def paper_backbone() -> nn.Module:
    """The paper's Swin-T backbone, in place of a detector that needs no config."""
    import sparsevit.models  # noqa: F401

    return nn.ModuleDict({"backbone": build_part(PAPER_BACKBONE, Detection())}).eval()


def _model(
    workspace: Workspace,
    config: PathLike | None,
    sparsity: PathLike | None,
    scope: str,
    overrides: Sequence[str],
    reporter: Reporter,
) -> tuple[Task, nn.Module, Configuration, str]:
    nothing_there = workspace.resolve_config(None, ("finetune", "adapt", "pretrain")) is None
    if config is None and nothing_there:
        if scope != "backbone" or overrides:
            raise UserError(
                "Without a config, only the paper's Swin-T backbone can be timed.",
                "Give a config, such as sparsevit::sparsevit/sparsevit_cfg2_35ms.py.",
            )
        reporter.note("model: the paper's Swin-T backbone (no config given, none in the workspace)")
        model = paper_backbone()
        space = SparsityHandle(model).space
        chosen = space.dense() if sparsity is None else read_configuration(sparsity, space)
        return Detection(), model, chosen, "Swin-T backbone of the paper"
    inputs = gather_inputs(workspace, "latency", config, None, overrides, reporter=reporter)
    picked = choose_sparsity(inputs, sparsity, workspace.best_configuration(), reporter=reporter)
    model, _ = build_model(inputs.cfg)
    said = str(config or f"the config of {inputs.config_source}")
    return task_of(inputs.cfg), model, picked.configuration, said
