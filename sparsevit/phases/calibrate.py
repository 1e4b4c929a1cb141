"""Calibrating the latency of a model on a device, once, for every search that follows."""

from __future__ import annotations

import json
import os
from collections.abc import Callable, Mapping, Sequence
from dataclasses import asdict, dataclass, replace
from importlib import metadata
from pathlib import Path
from typing import Any

import torch

from sparsevit.engine.runner import build_detector
from sparsevit.errors import UserError
from sparsevit.latency import calibration as calibrating
from sparsevit.latency.calibration import HELD_OUT, MAX_ERROR, SECONDS, Plan, measure_plan
from sparsevit.latency.cost import gmacs
from sparsevit.latency.predictor import Calibration
from sparsevit.latency.share import Share, measure_share
from sparsevit.latency.structure import structure_digest
from sparsevit.latency.subject import (
    PAPER_BATCH,
    PAPER_IMG_SIZE,
    Subject,
    at,
    require_execution,
)
from sparsevit.ops import mmcv_ext
from sparsevit.ops.window_kernels import VARIABLE as KERNELS
from sparsevit.phases.device import device_name, pick_device
from sparsevit.phases.inputs import PathLike, gather_inputs, open_workspace, validation_size
from sparsevit.report.reporter import SILENT, Reporter
from sparsevit.sparsity import Configuration
from sparsevit.sparsity.handle import SparsityHandle
from sparsevit.workspace import Run, Workspace
from sparsevit.workspace.atomic import write_atomic
from sparsevit.workspace.kept import Kept
from sparsevit.workspace.provenance import now, versions

FOLDER = "calibrations"
_MEASURED = "measured.json"
_PACKAGES = {
    "onnxruntime": ("onnxruntime", "onnx"),
    "openvino": ("openvino",),
    "tensorrt": ("tensorrt",),
}


@dataclass(frozen=True)
class CalibrateResult:
    """A calibration, and where it is kept.

    Attributes:
        calibration: what was measured, what follows for each knob, and the check.
        accepted: whether its mean error is within the limit.
        file: where it is kept.
        reused: whether it was there already.
        scope, backend, batch_size, img_size, precision, device: how latency was measured.
        device_name: the hardware.
        torch_threads: CPU threads that PyTorch used.
    """

    calibration: Calibration
    accepted: bool
    file: Path
    reused: bool
    scope: str
    backend: str
    batch_size: int
    img_size: tuple[int, int]
    precision: str
    device: str
    device_name: str
    torch_threads: int


@dataclass(frozen=True)
class Timed:
    """A model as it is timed, and what its latency depends on.

    Attributes:
        subject: what is called.
        handle: of its model.
        backend: what executes it.
        batch_size, img_size: of a call; (height, width).
        checkpoint: SHA-256 of the weights; they matter where a whole detector is timed, as what it
            finds takes time.
    """

    subject: Subject
    handle: SparsityHandle
    backend: str
    batch_size: int
    img_size: tuple[int, int]
    checkpoint: str | None = None

    def key(self) -> dict[str, Any]:
        """What a calibration holds for; it is not used where any of it differs."""
        whole = self.subject.scope != "backbone"
        model = self.subject.model if whole else self.subject.model.get_submodule("backbone")
        device = self.subject.device
        return {
            "scope": self.subject.scope,
            "backend": self.backend,
            "precision": self.subject.precision,
            "batch_size": self.batch_size,
            "img_size": list(self.img_size),
            "device": device.type,
            "device_name": device_name(device),
            "threads": torch.get_num_threads(),
            "model_sha256": structure_digest(model),
            "checkpoint_sha256": self.checkpoint if whole else None,
            "versions": _versions(self.backend),
            "kernels": os.environ.get(KERNELS, "auto"),
            "ops": mmcv_ext.backend() if whole else None,
        }


def calibrate(
    config: PathLike | None = None,
    checkpoint: PathLike | None = None,
    *,
    workspace: PathLike | None = None,
    overrides: Sequence[str] = (),
    scope: str = "backbone",
    backend: str = "eager",
    img_size: tuple[int, int] | None = None,
    batch_size: int = PAPER_BATCH,
    precision: str = "fp32",
    held_out: int = HELD_OUT,
    max_error: float = MAX_ERROR,
    seconds: float = SECONDS,
    device: str | None = None,
    seed: int = 0,
    force: bool = False,
    reporter: Reporter = SILENT,
) -> CalibrateResult:
    """Measure how a model's latency answers to each knob, so that a search need not time.

    Killed and called again, it goes on. One that is there for the same device, model and settings
    is given as it is.

    Args:
        config: path or name; the workspace's where None, else the embedded demo's.
        checkpoint: weights, which matter to the time of a whole detector only; those that ``adapt``
            made where None.
        workspace: directory of the record; ``work_dirs`` where None.
        overrides: config values, ``key=value`` each.
        scope: ``backbone`` or ``detector``.
        backend: what executes it.
        img_size: (height, width); that of the config's validation where it is one fixed size, else
            672x672, where None.
        batch_size: images a timed call.
        precision: ``fp32``, ``fp16`` or ``bf16``.
        held_out: random configurations to check predictions with.
        max_error: mean error on them up to which predictions are accepted, as a share.
        seconds: time to spend; what cannot be left out is measured even if it takes longer.
        device: where to run; CUDA if there is any where None.
        seed: of the held-out configurations.
        force: measure again though it is there.
        reporter: is told what happens.

    Raises:
        UserError: an input is missing or wrong, or the workspace cannot be written.
    """
    where = pick_device(device)
    require_execution(scope, backend, precision, where)
    ws = open_workspace(workspace)
    inputs = gather_inputs(ws, "calibrate", config, checkpoint, overrides, reporter=reporter)
    weights = inputs.checkpoint if scope == "detector" else None
    if scope == "detector" and weights is None:
        raise UserError(
            "How long a whole detector takes depends on what it finds, and there are no weights.",
            "Give them, `sparsevit calibrate CONFIG CHECKPOINT`, or take --scope backbone.",
        )
    size = img_size or validation_size(inputs.cfg) or PAPER_IMG_SIZE
    model, _ = build_detector(inputs.cfg, weights, where)
    timed = Timed(
        subject=Subject(
            model,
            scope=scope,
            batch_size=batch_size,
            img_size=size,
            device=where,
            precision=precision,
        ),
        handle=SparsityHandle(model),
        backend=backend,
        batch_size=batch_size,
        img_size=size,
        checkpoint=None if weights is None else ws.file_digest(weights),
    )
    found = None if force else kept_calibration(ws, timed, max_error)
    made = found or measured_calibration(
        ws,
        timed,
        held_out=held_out,
        max_error=max_error,
        seconds=seconds,
        seed=seed,
        force=force,
        reporter=reporter,
    )
    key = made.key
    return CalibrateResult(
        calibration=made,
        accepted=made.accepted,
        file=Kept(ws.path / FOLDER).path(key),
        reused=found is not None,
        scope=scope,
        backend=backend,
        batch_size=batch_size,
        img_size=size,
        precision=precision,
        device=str(where),
        device_name=key["device_name"],
        torch_threads=key["threads"],
    )


def kept_calibration(
    ws: Workspace, timed: Timed, max_error: float = MAX_ERROR
) -> Calibration | None:
    """The calibration that the workspace has for this model, device and settings, if any.

    Args:
        max_error: the mean error up to which it is to be accepted.
    """
    document = Kept(ws.path / FOLDER).read(timed.key())
    if document is None:
        return None
    try:
        found = Calibration.from_dict(document)
    except ValueError:
        return None
    # a model that has other knobs cannot have this digest, but a file can be edited
    if set(found.tables) != set(timed.handle.space.names):
        return None
    return replace(found, limit=max_error)


def measured_calibration(
    ws: Workspace,
    timed: Timed,
    *,
    held_out: int = HELD_OUT,
    max_error: float = MAX_ERROR,
    seconds: float = SECONDS,
    seed: int = 0,
    force: bool = False,
    reporter: Reporter = SILENT,
) -> Calibration:
    """Measure, going on with what an earlier attempt measured, and keep what comes of it.

    Args:
        ws, timed: keeps it, and what is timed.
        held_out, max_error, seconds, seed, force, reporter: see :func:`calibrate`.

    Raises:
        UserError: the workspace cannot be written, or the backend cannot be had.
    """
    key = timed.key()
    given = {**key, "held_out": held_out, "seed": seed}
    # a finished one whose file is gone, or was for something else, is no reason not to measure
    again = force or ws.find("calibrate", given) is not None
    with ws.run("calibrate", given, force=again) as run:
        before = timed.handle.get()
        try:
            plan = Plan(timed.handle.space, _work(timed), held_out, seed)
            shares = _shares(run, plan, timed, seconds, reporter)
        finally:
            timed.handle.set(before)
        made = calibrating.calibrate(plan, shares, key=key, limit=max_error, made=now())
        file = Kept(ws.path / FOLDER).write(key, made.to_dict())
        run.update(
            metrics={
                "mean_error": made.mean_error,
                "max_error": made.max_error,
                "accepted": made.accepted,
                "dense_ms": made.dense_ms,
            },
            outputs={"calibration": file},
        )
    reporter.note(f"latency: calibrated, {error_text(made)}")
    return made


def _shares(
    run: Run, plan: Plan, timed: Timed, seconds: float, reporter: Reporter
) -> dict[Configuration, Share]:
    path = run.directory / _MEASURED
    known = {c: share for c, share in _read_shares(path).items() if c in plan}
    device = timed.subject.device
    dense = _call(timed, timed.handle.space.dense())

    def measure(configuration: Configuration, allowed: float) -> Share:
        return measure_share(_call(timed, configuration), dense, device, seconds=allowed)

    with reporter.task("calibrate", len(plan)) as task:
        task.start_at(len(known))
        done = dict(known)

        def on_share(configuration: Configuration, share: Share) -> None:
            done[configuration] = share
            _write_shares(path, done)
            task.advance(detail=f"{share.share:.3f} of dense, {share.turns} turns")

        return measure_plan(plan, measure, seconds=seconds, known=known, on_share=on_share)


def _call(timed: Timed, configuration: Configuration) -> Callable[[], Any]:
    return at(timed.subject, timed.handle, configuration, timed.backend)


def _work(timed: Timed) -> calibrating.Work:
    """Multiplications of the backbone on one image: the same share is left of a whole batch."""
    one = Subject(
        timed.subject.model,
        scope="backbone",
        batch_size=1,
        img_size=timed.img_size,
        device=timed.subject.device,
    )

    def work(configuration: Configuration) -> float:
        timed.handle.set(configuration)
        return gmacs(one, one.model)

    return work


def _read_shares(path: Path) -> dict[Configuration, Share]:
    """What an earlier attempt measured; nothing where its file cannot be read."""
    try:
        rows = json.loads(path.read_text(encoding="utf-8"))
        return {Configuration(row["configuration"]): Share(**row["share"]) for row in rows}
    except (OSError, ValueError, TypeError, KeyError):
        return {}


def _write_shares(path: Path, shares: Mapping[Configuration, Share]) -> None:
    rows = [{"configuration": c.to_dict(), "share": asdict(s)} for c, s in shares.items()]
    write_atomic(path, json.dumps(rows, indent=1) + "\n")


def _versions(backend: str) -> dict[str, str]:
    found = {n: v for n, v in versions().items() if n in ("sparsevit", "torch", "mmcv", "mmdet")}
    for package in _PACKAGES.get(backend, ()):
        try:
            found[package] = metadata.version(package)
        except metadata.PackageNotFoundError:
            continue
    return found


def error_text(calibration: Calibration) -> str:
    """How far off predictions are, for people."""
    return (
        f"predictions off by {calibration.mean_error:.1%} on average and "
        f"{calibration.max_error:.1%} at most on {len(calibration.held_out)} held-out "
        f"configurations"
    )
