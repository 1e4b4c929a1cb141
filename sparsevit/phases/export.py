"""A trained backbone or whole model at one sparsity, as a file that another runtime loads."""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from importlib import metadata
from pathlib import Path
from typing import Any

import torch
from mmengine.config import Config
from torch import nn

from sparsevit.engine.preparation import preparation
from sparsevit.engine.runner import build_model
from sparsevit.errors import UserError
from sparsevit.latency.backends.artefacts import FORMATS, Checked, Format
from sparsevit.latency.backends.export_check import write_backbone
from sparsevit.latency.backends.graph import INPUT
from sparsevit.latency.execution import require_images
from sparsevit.phases.budgets import named_best
from sparsevit.phases.device import device_name
from sparsevit.phases.inputs import (
    Inputs,
    PathLike,
    gather_inputs,
    image_size,
    require_checkpoint,
)
from sparsevit.phases.sparsity import Chosen, choose_sparsity
from sparsevit.report.reporter import SILENT, Reporter
from sparsevit.sparsity.files import write_text
from sparsevit.sparsity.handle import SparsityHandle
from sparsevit.tasks import Task, task_of, task_of_scope
from sparsevit.tasks.script import NoScript, backbone_finding, script_text
from sparsevit.workspace import Workspace
from sparsevit.workspace.provenance import now, versions


@dataclass(frozen=True)
class ExportResult:
    """What was written, and how well it agrees.

    Attributes:
        scope: ``backbone``, ``detector``, ``segmentor``, ``bev-detector`` or ``classifier``.
        format: one of ``FORMATS``.
        out: the file to load.
        files: all that belongs to it, the description last.
        megabytes: of all of them.
        img_size: (height, width) in pixels, the only one that it takes.
        batch_size: images a call, as fixed.
        precision: of its weights and its input.
        outputs: name -> shape of every feature map, or of boxes, scores, labels and masks.
        sparsity: a ratio for every knob.
        sparsity_source, config_source, checkpoint_source: where these came from.
        differences: the largest between its outputs and eager ones: of feature maps on random
            images; of detections on drawn pictures, boxes in pixels.
        compared: how many detections were compared; None for a backbone.
        script: the Python file beside it that runs it; None where none can.
        description: what the JSON file beside it holds.
    """

    scope: str
    format: str
    out: Path
    files: list[Path]
    megabytes: float
    img_size: tuple[int, int]
    batch_size: int
    precision: str
    outputs: dict[str, list[int]]
    sparsity: dict[str, float]
    sparsity_source: str
    config_source: str
    checkpoint_source: str
    differences: dict[str, float]
    compared: int | None
    script: Path | None
    description: dict[str, Any]


def export(
    config: PathLike | None = None,
    checkpoint: PathLike | None = None,
    *,
    scope: str = "backbone",
    out: PathLike | None = None,
    format: str | None = None,
    sparsity: PathLike | None = None,
    budget: str | None = None,
    img_size: tuple[int, int] | None = None,
    batch_size: int = 1,
    force: bool = False,
    workspace: PathLike | None = None,
    overrides: Sequence[str] = (),
    reporter: Reporter = SILENT,
) -> ExportResult:
    """Write a model or its backbone for another runtime. The workspace is only read.

    The file is loaded by its own runtime and compared with eager PyTorch before it gets its name,
    so a file that is there has been checked. Beside it, where the test pipeline and the model are
    of a kind that it knows to copy, is a script that runs it with the runtime alone.

    Args:
        config: path or name; the workspace's last where None, else the embedded demo's.
        checkpoint: weights; those of the workspace's last phase where None.
        scope: ``backbone``, or what its task calls the whole model: ``detector``, of two-stage
            detectors, images in, boxes, scores, labels and masks out; ``segmentor`` and
            ``classifier``, images in, logits out.
        out: file to write; the scope and the format's suffix where None. ``<out>.json`` beside
            it says what it is, and ``<stem>_<format>.py`` runs it.
        format: ``onnx``, ``openvino``, ``pt2`` or ``tensorrt``; where None what ``out`` ends in,
            else ``onnx``.
        sparsity: file with a configuration; where None that of the config, else the workspace's
            best, else dense.
        budget: take the best that search found for this interval, ``37:42``, instead.
        img_size: (height, width) in pixels; that of the config's validation where it is one fixed
            size, else 672x672, where None.
        batch_size: images a call.
        force: replace ``out`` if it is there.
        workspace: directory of the record; ``work_dirs`` where None.
        overrides: config values, ``key=value`` each.
        reporter: is told what was taken.

    Raises:
        UserError: an input is missing or wrong, the runtime is not installed, ``out`` is there
            already or cannot be written, the model is of another kind, or the file differs from
            eager by too much; it is removed then.
    """
    whole = task_of_scope(scope)
    form, target = _target(FORMATS if whole is None else whole.formats(), scope, format, out)
    sidecar = target.with_name(target.name + ".json")
    script = target.with_name(f"{target.stem}_{form.name}.py")
    taken = [path for path in (target, sidecar, script) if path.exists()]
    if taken and not force:
        raise UserError(
            f"{taken[0]} already exists.", "Choose another --out, or replace it with --force."
        )
    form.check()
    ws = Workspace.open(workspace, readonly=True)
    sparsity = named_best(ws, sparsity, budget, reporter)
    inputs = gather_inputs(ws, "export", config, checkpoint, overrides, reporter=reporter)
    task_of(inputs.cfg).require_scope(scope)
    weights = require_checkpoint(inputs, "export")
    height, width = image_size(inputs.cfg, img_size, reporter)
    require_images(batch_size, (height, width), "exported")
    chosen = choose_sparsity(inputs, sparsity, ws.best_configuration(), reporter=reporter)
    model, said = build_model(inputs.cfg, weights)
    reporter.note(f"weights: {said}")
    SparsityHandle(model, required=False).set(chosen.configuration)
    task = task_of(inputs.cfg)
    shape = (batch_size * task.views, 3, height, width)
    reporter.note(f"writing {form.name} for {shape[0]} x {width}x{height}")
    if whole is None:
        backbone = task.backbone_of(model)
        checked = write_backbone(form, backbone, shape, target)
    else:
        checked = whole.write_checked(form, model, shape, target)
    description = {
        **_identity(form, scope, target, checked),
        "device": device_name(torch.device(form.device)),
        **_model(inputs, chosen, weights, ws),
        **_signature(inputs.cfg, shape, checked.outputs),
        **(whole.describe_export(inputs.cfg, model, batch_size) if whole else {}),
    }
    text = _script(whole, inputs.cfg, model, description, reporter)
    if text is not None:
        write_text(script, text)
    elif script.is_file():
        script.unlink()  # that of the file that was replaced
    description["script"] = script.name if text else None
    write_text(sidecar, json.dumps(description, indent=2) + "\n")
    files = [*checked.files, *([script] if text else []), sidecar]
    return ExportResult(
        scope=scope,
        format=form.name,
        out=target,
        files=files,
        megabytes=sum(path.stat().st_size for path in files) / 1e6,
        img_size=(height, width),
        batch_size=batch_size,
        precision="fp32",
        outputs=checked.outputs,
        sparsity=chosen.configuration.to_dict(),
        sparsity_source=chosen.source,
        config_source=inputs.config_source,
        checkpoint_source=inputs.checkpoint_source,
        differences=checked.differences,
        compared=checked.compared,
        script=script if text else None,
        description=description,
    )


def _target(
    formats: Mapping[str, Format[Any]], scope: str, format: str | None, out: PathLike | None
) -> tuple[Format[Any], Path]:
    if format is not None and format not in formats:
        raise UserError(f"There is no format {format!r}.", f"Use one of {', '.join(formats)}.")
    if out is None:
        form = formats[format or "onnx"]
        return form, Path(f"{scope}{form.suffix}")
    target = Path(out)
    named = next((form for form in formats.values() if form.suffix == target.suffix), None)
    if named is None or format not in (None, named.name):
        wanted = [form for form in formats.values() if format in (None, form.name)]
        suffixes = " or ".join(f"{form.suffix} ({form.name})" for form in wanted)
        raise UserError(
            f"{target} is not a valid name for an exported model.", f"Name it {suffixes}."
        )
    return named, target


def _script(
    whole: Task | None,
    cfg: Config,
    model: nn.Module,
    description: dict[str, Any],
    reporter: Reporter,
) -> str | None:
    """The text of the script beside the file; None where there can be none, and says why."""
    try:
        if whole is None:
            finds = backbone_finding([one["name"] for one in description["outputs"]])
        else:
            finds = whole.finding(model, description)
        given = description["input"]
        batch = given["shape"][0] // (1 if whole is None else whole.views)
        prepares = preparation(cfg, given, batch, finds.crops)
        return script_text(description["format"], description["file"], prepares, finds)
    except NoScript as why:
        reporter.note(f"no script to run it: {why}")
        return None


# --- the description ----------------------------------------------------------------------------


def _identity(form: Format[Any], scope: str, target: Path, checked: Checked) -> dict[str, Any]:
    runtime = {}
    for name in form.packages:
        try:
            runtime[name] = metadata.version(name)
        except metadata.PackageNotFoundError:
            continue
    return {
        "file": target.name,
        "format": form.name,
        "scope": scope,
        "precision": "fp32",
        "created": now(),
        "versions": {**versions(), **runtime},
        "largest_difference_to_eager": {
            **checked.differences,
            **({} if checked.compared is None else {"detections": checked.compared}),
            **({} if checked.threshold is None else {"score_threshold": checked.threshold}),
        },
    }


def _model(inputs: Inputs, chosen: Chosen, weights: Path, ws: Workspace) -> dict[str, Any]:
    name = inputs.cfg.filename
    return {
        "config": Path(name).name if name else None,
        "checkpoint": {"file": weights.name, "digest": ws.file_digest(weights)},
        "sparsity": chosen.configuration.to_dict(),
        **chosen.beside,
    }


def _signature(cfg: Config, shape: tuple[int, ...], maps: dict[str, list[int]]) -> dict[str, Any]:
    given = cfg.model.get("data_preprocessor") or {}
    mean, std = given.get("mean"), given.get("std")
    return {
        "input": {
            "name": INPUT,
            "shape": list(shape),
            "layout": "NCHW",
            "dtype": "float32",
            # normalising is not part of the file
            "normalised": mean is not None,
            "mean": list(mean) if mean is not None else None,
            "std": list(std) if std is not None else None,
            "channels": "RGB" if _to_rgb(given) else task_of(cfg).channels,
        },
        "outputs": [{"name": name, "shape": size} for name, size in maps.items()],
    }


def _to_rgb(preprocessor: Mapping[str, Any]) -> bool:
    """Whether a preprocessor turns colours around; mmpretrain's has its own word for it."""
    return bool(preprocessor.get("bgr_to_rgb") or preprocessor.get("to_rgb"))
