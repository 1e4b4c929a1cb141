"""What a phase works on: given by the caller, taken from the workspace, or the embedded demo."""

from __future__ import annotations

import hashlib
import os
from collections.abc import Iterator, Mapping, Sequence
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from mmengine.config import Config

from sparsevit.atomic import write_atomic
from sparsevit.engine import distributed
from sparsevit.engine.config import (
    apply_overrides,
    check_config,
    dump_config,
    load_config,
    sparsify_config,
)
from sparsevit.engine.config_check import MODEL_ONLY, TRAINING, VALIDATION
from sparsevit.engine.datasets import check_datasets, provide_embedded
from sparsevit.engine.image_size import pipeline_sizes
from sparsevit.engine.schedule import phase_config, with_paper_phases
from sparsevit.errors import UserError
from sparsevit.report.reporter import SILENT, Reporter
from sparsevit.workspace import Run, Workspace

PathLike = str | os.PathLike[str]

DEMO_CONFIG = "sparsevit::demo/mask_rcnn_swin_shapes.py"

# Phases that start from trained weights, and those that look at no image.
NEED_WEIGHTS = (
    *("adapt", "search", "sensitivity", "finetune"),
    *("evaluate", "predict", "export", "convert"),
)
NEED_NO_DATA = ("latency", "calibrate", "export", "convert")
# Phases that take a model of which nothing can be skipped, too.
DENSE_TOO = ("evaluate", "predict", "latency", "export")
TRAINED = ("pretrain", "adapt", "finetune")

# Which phases' outputs a phase starts from, the nearest first.
BEFORE = {
    "pretrain": (),
    "adapt": ("pretrain",),
    "search": ("adapt", "pretrain"),
    "calibrate": ("adapt", "pretrain"),
    "sensitivity": ("adapt", "pretrain"),
    "finetune": ("adapt", "pretrain"),
    "evaluate": ("finetune", "adapt", "pretrain"),
    "predict": ("finetune", "adapt", "pretrain"),
    "latency": ("finetune", "adapt", "pretrain"),
    "export": ("finetune", "adapt", "pretrain"),
    "convert": ("finetune", "pretrain"),
}


@dataclass(frozen=True)
class Inputs:
    """What a phase works on.

    Attributes:
        cfg: the config, with what the phase changes and the caller's overrides.
        base: the config as the next phase should find it: without what only this phase changes.
        config_source: where it came from, for people.
        checkpoint: weights to start from, if any.
        checkpoint_source: where they came from.
        data: the workspace's folder of datasets.
    """

    cfg: Config
    base: Config
    config_source: str
    checkpoint: Path | None
    checkpoint_source: str
    data: Path | None = None


def open_workspace(path: PathLike | None) -> Workspace:
    """The workspace, for writing in the first process and for reading in the others."""
    return Workspace.open(path, readonly=not distributed.is_first())


def gather_inputs(
    workspace: Workspace,
    phase: str,
    config: PathLike | None,
    checkpoint: PathLike | None,
    overrides: Sequence[str] = (),
    *,
    sparse: bool = True,
    data: bool = True,
    reporter: Reporter = SILENT,
) -> Inputs:
    """Find config and checkpoint of a phase, and say which they are.

    Args:
        workspace: where the previous phases left theirs.
        phase: which one.
        config: path or name; None for the workspace's, else the embedded demo's.
        checkpoint: path; None for the workspace's.
        overrides: ``key=value`` each, applied last.
        sparse: make the model one with parts that can be skipped; in phases that only run it, one
            that has nothing to skip stays as it is.
        reporter: is told what was taken.

    Raises:
        UserError: something is missing or wrong.
    """
    before, folder = BEFORE[phase], workspace.path / "data"
    data = data and phase not in NEED_NO_DATA
    found = workspace.resolve_config(config, before)
    name: PathLike = DEMO_CONFIG if found is None else found.path
    source = "the embedded demo" if found is None else found.source_text
    base = with_paper_phases(load_config(os.fspath(name)))
    if sparse:
        base = _sparse(base, phase)
    apply_overrides(base, overrides)
    weights = workspace.resolve_checkpoint(checkpoint, before)
    if weights is None and phase in NEED_WEIGHTS:
        raise _no_weights(phase)
    if data:
        provide_embedded(base, folder)
    cfg = phase_config(base, phase)
    apply_overrides(cfg, overrides)
    check_config(cfg, _needed(phase) if data else MODEL_ONLY)
    reporter.note(f"config: {name} ({source})")

    if weights is None:
        return Inputs(cfg, base, source, None, "none", folder)
    reporter.note(f"checkpoint: {weights.path} ({weights.source_text})")
    return Inputs(cfg, base, source, weights.path, weights.source_text, folder)


def _sparse(base: Config, phase: str) -> Config:
    try:
        return sparsify_config(base)
    except UserError:
        if phase not in DENSE_TOO:
            raise
        return base


def _needed(phase: str) -> tuple[str, ...]:
    """What a phase that looks at images uses of a config beside the model."""
    return TRAINING if phase in TRAINED else VALIDATION


def require_checkpoint(inputs: Inputs, phase: str) -> Path:
    """The checkpoint, which this phase cannot do without.

    Raises:
        UserError: there is none.
    """
    if inputs.checkpoint is None:
        raise _no_weights(phase)
    return inputs.checkpoint


def _no_weights(phase: str) -> UserError:
    return UserError(
        f"`sparsevit {phase}` needs trained weights, and the workspace has none.",
        f"Run `sparsevit pretrain` first, or give them: `sparsevit {phase} CONFIG CHECKPOINT`.",
    )


def record_of(
    workspace: Workspace, inputs: Inputs, more: Mapping[str, Any] | None = None
) -> dict[str, Any]:
    """The inputs of a run as the workspace records and compares them."""
    # a workspace that is moved keeps its inputs
    text = dump_config(inputs.cfg).replace(f"{workspace.path}{os.sep}", "")
    return {
        "config": Path(inputs.cfg.filename).name if inputs.cfg.filename else None,
        "config_sha256": hashlib.sha256(text.encode()).hexdigest(),
        "checkpoint": workspace.reference(inputs.checkpoint) if inputs.checkpoint else None,
        **(more or {}),
    }


@dataclass(frozen=True)
class PhaseRun:
    """A run of a phase in this process; only the first process has it on record."""

    directory: Path
    resumed: bool
    name: str
    run: Run | None

    def update(
        self,
        metrics: Mapping[str, Any] | None = None,
        outputs: Mapping[str, PathLike] | None = None,
    ) -> None:
        """Add to the record, in the first process."""
        if self.run is not None:
            self.run.update(metrics=metrics, outputs=outputs)

    def recorded(self, key: str) -> Any:
        """A metric that an earlier attempt of this run recorded, in every process."""
        return distributed.share(self.run.record.metrics.get(key) if self.run else None)


@contextmanager
def phase_run(
    workspace: Workspace,
    phase: str,
    inputs: Mapping[str, Any],
    *,
    force: bool = False,
    resume: bool = False,
    extendable: Sequence[str] = (),
) -> Iterator[PhaseRun]:
    """Begin or go on with a run; the processes agree on it before any does work.

    Raises:
        UserError: as :meth:`Workspace.run`; in the other processes SystemExit(2), silently.
    """
    if not distributed.is_first():
        told = distributed.share(None)
        if told is None:
            raise SystemExit(2)
        yield PhaseRun(Path(told["directory"]), told["resumed"], told["name"], None)
        return
    run = workspace.run(phase, inputs, force=force, resume=resume, extendable=extendable)
    with ExitStack() as stack:
        try:
            stack.enter_context(run)
        except BaseException:
            distributed.share(None)
            raise
        name = run.name
        told = {"directory": str(run.directory), "resumed": run.resumed, "name": name}
        distributed.share(told)
        yield PhaseRun(run.directory, run.resumed, name, run)


def save_config(inputs: Inputs, run: PhaseRun, cfg: Config | None = None) -> Path:
    """Write the config that the next phase starts from into the run's directory."""
    path = run.directory / "config.py"
    if distributed.is_first():
        write_atomic(path, dump_config(cfg or inputs.base))
    return path


def check_splits(
    inputs: Inputs, *splits: str, skip_broken: bool = False, reporter: Reporter = SILENT
) -> None:
    """Refuse datasets that the phase would stumble over, and a config that does not fit them.

    Args:
        inputs: where broken images are left out, ``cfg`` is changed.
        splits: see :func:`check_datasets`.
        skip_broken: leave broken images out, and say so, rather than refuse them.
        reporter: is told which.

    Raises:
        UserError: see :func:`check_datasets`.
    """
    for said in check_datasets(inputs.cfg, splits, inputs.data if skip_broken else None):
        reporter.note(said)


def image_size(
    cfg: Config, asked: tuple[int, int] | None = None, reporter: Reporter = SILENT
) -> tuple[int, int]:
    """(height, width) at which a model is timed or exported: what its test images have.

    Args:
        cfg: whose test pipeline is run on a few images; see :func:`pipeline_sizes`.
        asked: the user's own, taken as it is.
        reporter: is told the size and where it is from.

    Raises:
        UserError: the images have several sizes, or none can be told.
    """
    if asked is not None:
        return asked
    found = pipeline_sizes(cfg)
    sizes = sorted(found.counts, key=lambda size: -found.counts[size])
    shown = [f"{width}x{height}" for height, width in sizes]
    if len(sizes) == 1:
        reporter.note(f"image size: {shown[0]} ({found.source})")
        return sizes[0]
    if sizes:
        counts = ", ".join(
            f"{name} ({found.counts[size]})" for name, size in zip(shown, sizes, strict=True)
        )
        raise UserError(
            f"The test pipeline gives images of several sizes: {counts} of {found.source}.",
            f"Choose one: --img-size {shown[0]}.",
        )
    raise UserError(
        "The size of the test images cannot be told from the test pipeline alone, and "
        f"{found.missing}.",
        "Give it: --img-size WIDTHxHEIGHT, such as --img-size 512x384.",
    )
