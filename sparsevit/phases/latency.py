"""Latency, parameters and multiplications of a model or its backbone."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field, replace
from typing import Any

import torch
from torch import nn

from sparsevit.engine.runner import build_model, build_part
from sparsevit.errors import UserError
from sparsevit.latency.backends import BACKENDS, PRECISIONS
from sparsevit.latency.clock import Machine, steadiest_of_paired
from sparsevit.latency.cost import gmacs, parameters
from sparsevit.latency.execution import FLAT, PAPER_BATCH, PAPER_IMG_SIZE, Execution
from sparsevit.latency.timer import Latency
from sparsevit.latency.workload import Workload
from sparsevit.phases.budgets import named_best
from sparsevit.phases.device import device_name, pick_device
from sparsevit.phases.inputs import BEFORE, PathLike, gather_inputs, image_size
from sparsevit.phases.sparsity import choose_sparsity
from sparsevit.report.reporter import SILENT, Reporter
from sparsevit.sparsity import Configuration, read_configuration
from sparsevit.sparsity.handle import SparsityHandle
from sparsevit.tasks import Task, task_of
from sparsevit.tasks.detection import Detection
from sparsevit.workspace import Workspace

# What is kept of the words of a runtime that failed.
_MISSING_LENGTH = 200

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
        busy: what the timings say of other work on the machine; None where nothing speaks for it.
    """

    subject: str
    execution: Execution = field(metadata=FLAT)
    device_name: str
    torch_version: str
    torch_threads: int
    parameters: int
    rows: list[Row]
    busy: str | None = None


@dataclass(frozen=True)
class BackendRow:
    """A backend in a precision.

    Attributes:
        backend, precision: which.
        rows: dense first, where it was compared; empty where it cannot be had.
        missing: why it cannot be had here; None where it was timed.
    """

    backend: str
    precision: str
    rows: list[Row]
    missing: str | None = None


@dataclass(frozen=True)
class BackendsResult:
    """The same model in every backend and precision, on one machine.

    Attributes:
        subject: for people: which model.
        scope, img_size, batch_size, device: see :class:`Execution`.
        device_name, torch_version, torch_threads, parameters, busy: see :class:`LatencyResult`.
        backends: in the order of :data:`sparsevit.latency.backends.BACKENDS`.
    """

    subject: str
    scope: str
    img_size: tuple[int, int]
    batch_size: int
    device: str
    device_name: str
    torch_version: str
    torch_threads: int
    parameters: int
    backends: list[BackendRow]
    busy: str | None = None


def latency(
    config: PathLike | None = None,
    *,
    workspace: PathLike | None = None,
    sparsity: PathLike | None = None,
    budget: str | None = None,
    compare: bool = False,
    scope: str = "backbone",
    backend: str = "eager",
    img_size: tuple[int, int] | None = None,
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
        workspace: directory of the record, which is only read; with a config it need not be there.
        sparsity: file with a configuration; where None that of the config, else the workspace's
            best, else dense.
        budget: take the best that search found for this interval, ``37:42``, instead.
        compare: time the dense model beside it, turn by turn.
        scope: ``backbone``, or a whole model: ``detector``, ``segmentor``, ``bev-detector`` or
            ``classifier``.
        backend: what executes it, one of :data:`sparsevit.latency.backends.BACKENDS`.
        img_size: (height, width) in pixels; that of the config's test images where None, of the
            paper's backbone 672x672.
        batch_size: images a call.
        device: where to run; CUDA if there is any where None.
        precision: ``fp32``, ``fp16`` or ``bf16``.
        warmup, repeats, seconds: see :func:`sparsevit.latency.paired.measure_paired`.
        overrides: config values, ``key=value`` each.
        reporter: is told what was taken.

    Raises:
        UserError: an input is missing or wrong, or a device is not there.
    """
    asked = Execution(
        *(scope, backend, precision, img_size or PAPER_IMG_SIZE, batch_size, pick_device(device))
    ).require()
    subject = _subject(config, workspace, sparsity, budget, scope, img_size, overrides, reporter)
    execution = replace(asked, img_size=subject.img_size)
    machine = Machine(execution.device, lambda text: reporter.note(text))
    workload = Workload(subject.model, execution, task=subject.task)
    settings = subject.settings(compare)
    costs = {name: subject.gmacs(workload, setting) for name, setting in settings.items()}
    how = {"warmup": warmup, "repeats": repeats, "seconds": seconds}
    return LatencyResult(
        subject=subject.said,
        execution=execution,
        rows=_timed(workload, settings, costs, machine, how),
        parameters=parameters(workload.timed_part),
        **_machine(execution.device, machine),
    )


def latency_in_backends(
    config: PathLike | None = None,
    *,
    workspace: PathLike | None = None,
    sparsity: PathLike | None = None,
    budget: str | None = None,
    compare: bool = False,
    scope: str = "backbone",
    img_size: tuple[int, int] | None = None,
    batch_size: int = PAPER_BATCH,
    device: str | None = None,
    precisions: Sequence[str] = PRECISIONS,
    warmup: int | None = None,
    repeats: int | None = None,
    seconds: float = 10.0,
    overrides: Sequence[str] = (),
    reporter: Reporter = SILENT,
) -> BackendsResult:
    """:func:`latency` in every backend and precision that can be had here.

    Args:
        precisions: which to try.
        seconds: to spend on each, beside getting it ready.

    The other arguments are those of :func:`latency`.

    Raises:
        UserError: an input is missing or wrong, or a device is not there. A backend that cannot be
            had is none: its row says why.
    """
    where = pick_device(device)
    asked = Execution(scope, "eager", "fp32", img_size or PAPER_IMG_SIZE, batch_size, where)
    asked.require()
    subject = _subject(config, workspace, sparsity, budget, scope, img_size, overrides, reporter)
    first = replace(asked, img_size=subject.img_size)
    machine = Machine(where, lambda text: reporter.note(text))
    settings = subject.settings(compare)
    plain = Workload(subject.model, first, task=subject.task)
    costs = {name: subject.gmacs(plain, setting) for name, setting in settings.items()}
    how = {"warmup": warmup, "repeats": repeats, "seconds": seconds}
    found = []
    every = [(backend, precision) for backend in BACKENDS for precision in precisions]
    with reporter.task("latency", len(every)) as task:
        for backend, precision in every:
            execution = replace(first, backend=backend, precision=precision)
            rows: list[Row] = []
            missing = None
            try:
                workload = Workload(subject.model, execution, task=subject.task)
                rows = _timed(workload, settings, costs, machine, how)
            except UserError as error:
                missing = error.problem
            except Exception as error:  # of any runtime: the others can still be timed
                said = " ".join(str(error).split())
                missing = f"failed: {type(error).__name__}: {said}"[:_MISSING_LENGTH]
                reporter.note(f"{backend} {precision} {missing}")
            found.append(BackendRow(backend, precision, rows, missing))
            task.advance(detail=f"{backend} {precision}")
    return BackendsResult(
        subject=subject.said,
        scope=scope,
        img_size=subject.img_size,
        batch_size=batch_size,
        device=str(where),
        parameters=parameters(plain.timed_part),
        backends=found,
        **_machine(where, machine),
    )


def _timed(
    workload: Workload,
    settings: Mapping[str, Configuration],
    costs: Mapping[str, float],
    machine: Machine,
    how: Mapping[str, Any],
) -> list[Row]:
    """A row for each configuration, timed turn by turn; again where the figures cannot be."""
    calls = {name: workload.at(setting) for name, setting in settings.items()}
    with machine.watched():
        timings = steadiest_of_paired(calls, workload.execution.device, **how)
    for timing in timings.values():
        machine.note_latency(timing)
    dense_ms = timings["dense"].mean_ms if "dense" in timings else None
    return [
        Row(
            name=name,
            sparsity=setting.to_dict(),
            latency=timings[name],
            gmacs=costs[name],
            speedup=dense_ms / timings[name].mean_ms if dense_ms else None,
        )
        for name, setting in settings.items()
    ]


def _machine(device: torch.device, machine: Machine) -> dict[str, Any]:
    return {
        "device_name": device_name(device),
        "torch_version": torch.__version__,
        "torch_threads": torch.get_num_threads(),
        "busy": machine.busy,
    }


def paper_backbone() -> nn.Module:
    """The paper's Swin-T backbone, in place of a detector that needs no config."""
    import sparsevit.models  # noqa: F401

    return nn.ModuleDict({"backbone": build_part(PAPER_BACKBONE, Detection())}).eval()


@dataclass(frozen=True)
class _Subject:
    """A model to be timed, at a configuration and an image size."""

    task: Task
    model: nn.Module
    configuration: Configuration
    said: str
    img_size: tuple[int, int]

    def settings(self, compare: bool) -> dict[str, Configuration]:
        """What is timed by name, dense first where it is compared."""
        mine = {"sparse" if any(self.configuration.values()) else "dense": self.configuration}
        if not compare:
            return mine
        return {"dense": SparsityHandle(self.model, required=False).space.dense(), **mine}

    def gmacs(self, workload: Workload, configuration: Configuration) -> float:
        workload.handle.set(configuration)
        return gmacs(workload, self.model)


def _subject(
    config: PathLike | None,
    workspace: PathLike | None,
    sparsity: PathLike | None,
    budget: str | None,
    scope: str,
    img_size: tuple[int, int] | None,
    overrides: Sequence[str],
    reporter: Reporter,
) -> _Subject:
    # a workspace that was named must be there, if the model is to come from it
    ws = Workspace.open(workspace, create=workspace is None or config is not None, readonly=True)
    sparsity = named_best(ws, sparsity, budget, reporter)
    if config is None and ws.resolve_config(None, BEFORE["latency"]) is None:
        if scope != "backbone" or overrides:
            raise UserError(
                "Without a config, only the paper's Swin-T backbone can be timed.",
                "Give a config, such as sparsevit::sparsevit/sparsevit_cfg2_35ms.py.",
            )
        reporter.note("model: the paper's Swin-T backbone (no config given, none in the workspace)")
        model = paper_backbone()
        space = SparsityHandle(model).space
        chosen = space.dense() if sparsity is None else read_configuration(sparsity, space)
        said = "Swin-T backbone of the paper"
        return _Subject(Detection(), model, chosen, said, img_size or PAPER_IMG_SIZE)
    inputs = gather_inputs(ws, "latency", config, None, overrides, reporter=reporter)
    size = image_size(inputs.cfg, img_size, reporter)
    picked = choose_sparsity(inputs, sparsity, ws.best_configuration(), reporter=reporter)
    model, _ = build_model(inputs.cfg)
    said = str(config or f"the config of {inputs.config_source}")
    return _Subject(task_of(inputs.cfg), model, picked.configuration, said, size)
