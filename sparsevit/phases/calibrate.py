"""Calibrating the latency of a model on a device, once, for every search that follows."""

from __future__ import annotations

import json
import os
from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass, field, replace
from importlib import metadata
from pathlib import Path
from typing import Any

import torch

from sparsevit.atomic import write_atomic
from sparsevit.engine.runner import build_model
from sparsevit.errors import UserError
from sparsevit.latency import calibration as calibrating
from sparsevit.latency.calibration import HELD_OUT, MAX_ERROR, SECONDS, Plan, measure_plan
from sparsevit.latency.clock import Machine, believable
from sparsevit.latency.cost import gmacs
from sparsevit.latency.execution import FLAT, PAPER_BATCH, PAPER_IMG_SIZE, Execution
from sparsevit.latency.predictor import Calibration
from sparsevit.latency.relative import Share, measure_share
from sparsevit.latency.structure import structure_digest
from sparsevit.latency.workload import Workload
from sparsevit.ops import mmcv_ext
from sparsevit.ops.window_kernels import VARIABLE as KERNELS
from sparsevit.phases.device import device_name, pick_device
from sparsevit.phases.inputs import PathLike, gather_inputs, image_size, open_workspace
from sparsevit.plain_files import read_record
from sparsevit.report.reporter import SILENT, Reporter
from sparsevit.sparsity import Configuration
from sparsevit.workspace import Run, Workspace
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
        execution: how latency was measured.
        device_name: the hardware.
        torch_threads: CPU threads that PyTorch used.
    """

    calibration: Calibration
    accepted: bool
    file: Path
    reused: bool
    execution: Execution = field(metadata=FLAT)
    device_name: str
    torch_threads: int


def calibration_key(workload: Workload) -> dict[str, Any]:
    """What a calibration of a workload holds for; it is not used where any of it differs."""
    how = workload.execution
    return {
        **how.to_dict(),
        "device": how.device.type,
        "device_name": device_name(how.device),
        "threads": torch.get_num_threads(),
        "model_sha256": structure_digest(workload.timed_part),
        # what a whole model finds takes time
        "checkpoint_sha256": workload.weights if how.whole else None,
        "versions": _versions(how.backend),
        "kernels": os.environ.get(KERNELS, "auto"),
        "ops": mmcv_ext.backend() if how.whole else None,
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
        checkpoint: weights, which matter to the time of a whole model only; those that ``adapt``
            made where None.
        workspace: directory of the record; ``work_dirs`` where None.
        overrides: config values, ``key=value`` each.
        scope: ``backbone``, or a whole model: ``detector``, ``segmentor``, ``bev-detector`` or
            ``classifier``.
        backend: what executes it.
        img_size: (height, width); that of the config's test images where None.
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
    asked = Execution(
        *(scope, backend, precision, img_size or PAPER_IMG_SIZE, batch_size, pick_device(device))
    ).require()
    ws = open_workspace(workspace)
    inputs = gather_inputs(ws, "calibrate", config, checkpoint, overrides, reporter=reporter)
    weights = inputs.checkpoint if asked.whole else None
    if asked.whole and weights is None:
        raise UserError(
            f"How long a whole {scope} takes depends on what it finds, and there are no weights.",
            "Give them, `sparsevit calibrate CONFIG CHECKPOINT`, or take --scope backbone.",
        )
    execution = replace(asked, img_size=image_size(inputs.cfg, img_size, reporter))
    model, _ = build_model(inputs.cfg, weights, execution.device)
    workload = Workload(
        model, execution, weights=None if weights is None else ws.file_digest(weights)
    )
    found = None if force else kept_calibration(ws, workload, max_error)
    made = found or measured_calibration(
        ws,
        workload,
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
        execution=execution,
        device_name=key["device_name"],
        torch_threads=key["threads"],
    )


def kept_calibration(
    ws: Workspace, workload: Workload, max_error: float = MAX_ERROR
) -> Calibration | None:
    """The calibration that the workspace has for this model, device and settings, if any.

    Args:
        max_error: the mean error up to which it is to be accepted.
    """
    document = Kept(ws.path / FOLDER).read(calibration_key(workload))
    if document is None:
        return None
    try:
        found = Calibration.from_dict(document)
    except ValueError:
        return None
    # a model that has other knobs cannot have this digest, but a file can be edited
    if set(found.tables) != set(workload.handle.space.names):
        return None
    return replace(found, limit=max_error)


def measured_calibration(
    ws: Workspace,
    workload: Workload,
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
        ws, workload: keeps it, and what is timed.
        held_out, max_error, seconds, seed, force, reporter: see :func:`calibrate`.

    Raises:
        UserError: the workspace cannot be written, or the backend cannot be had.
    """
    key = calibration_key(workload)
    given = {**key, "held_out": held_out, "seed": seed}
    # a finished one whose file is gone, or was for something else, is no reason not to measure
    again = force or ws.find("calibrate", given) is not None
    with ws.run("calibrate", given, force=again) as run:
        before = workload.handle.get()
        try:
            plan = Plan(workload.handle.space, _work(workload), held_out, seed)
            machine = Machine(workload.execution.device, lambda text: reporter.note(text))
            shares = _shares(run, plan, workload, seconds, machine, reporter)
        finally:
            workload.handle.set(before)
        made = calibrating.calibrate(plan, shares, key=key, limit=max_error, made=now())
        made = replace(made, busy=machine.busy)
        file = Kept(ws.path / FOLDER).write(key, made.to_dict())
        run.update(
            metrics={
                "mean_error": made.mean_error,
                "max_error": made.max_error,
                "accepted": made.accepted,
                "dense_ms": made.dense_ms,
                **({"machine": made.busy} if made.busy else {}),
            },
            outputs={"calibration": file},
        )
    reporter.note(f"latency: calibrated, {error_text(made)}")
    return made


def _shares(
    run: Run,
    plan: Plan,
    workload: Workload,
    seconds: float,
    machine: Machine,
    reporter: Reporter,
) -> dict[Configuration, Share]:
    path = run.directory / _MEASURED
    known = {c: share for c, share in _read_shares(path).items() if c in plan}
    device = workload.execution.device
    dense = workload.at(workload.handle.space.dense())

    def measure(configuration: Configuration, allowed: float) -> Share:
        call = workload.at(configuration)
        with machine.watched():
            share = believable(lambda: measure_share(call, dense, device, seconds=allowed))
        machine.note_share(share)
        return share

    with reporter.task("calibrate", len(plan)) as task:
        task.start_at(len(known))
        done = dict(known)

        def on_share(configuration: Configuration, share: Share) -> None:
            done[configuration] = share
            _write_shares(path, done)
            task.advance(detail=f"{share.share:.3f} of dense, {share.turns} turns")

        return measure_plan(plan, measure, seconds=seconds, known=known, on_share=on_share)


def _work(workload: Workload) -> calibrating.Work:
    """Multiplications of the backbone on one image: the same share is left of a whole batch."""
    one = workload.of_one_image()

    def work(configuration: Configuration) -> float:
        workload.handle.set(configuration)
        return gmacs(one, one.model)

    return work


def _read_shares(path: Path) -> dict[Configuration, Share]:
    """What an earlier attempt measured; nothing where its file cannot be read."""
    try:
        rows = read_record(path)
        return {Configuration(row["configuration"]): Share(**row["share"]) for row in rows}
    except (ValueError, TypeError, KeyError):
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
