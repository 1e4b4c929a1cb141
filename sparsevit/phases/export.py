"""A trained backbone at one sparsity, as a file that another runtime loads."""

from __future__ import annotations

import json
import math
import os
import tempfile
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from importlib import metadata
from pathlib import Path
from typing import Any

import torch
from mmengine.config import Config
from torch import Tensor, nn

from sparsevit.engine.runner import build_detector
from sparsevit.errors import UserError
from sparsevit.latency.backends import prepare
from sparsevit.latency.backends.artefacts import FORMATS, Format
from sparsevit.latency.backends.base import Run
from sparsevit.latency.backends.graph import INPUT, output_names
from sparsevit.latency.subject import PAPER_IMG_SIZE
from sparsevit.phases.device import device_name
from sparsevit.phases.inputs import Inputs, PathLike, gather_inputs, require_checkpoint
from sparsevit.phases.search import validation_size
from sparsevit.phases.sparsity import Chosen, choose_sparsity
from sparsevit.report.reporter import SILENT, Reporter
from sparsevit.sparsity.files import write_text
from sparsevit.sparsity.handle import SparsityHandle
from sparsevit.workspace import Workspace
from sparsevit.workspace.provenance import now, versions

LARGEST_DIFFERENCE = 1e-3
"""A file whose feature maps differ by more than this from eager ones is not kept."""

ATTEMPTS = 3
CPU = torch.device("cpu")


@dataclass(frozen=True)
class ExportResult:
    """What was written, and how well it agrees.

    Attributes:
        format: one of ``FORMATS``.
        out: the file to load.
        files: all that belongs to it, the description last.
        megabytes: of all of them.
        img_size: (height, width) in pixels, the only one that it takes.
        batch_size: images a call, as fixed.
        precision: of its weights and its input.
        outputs: name -> shape of every feature map.
        sparsity: a ratio for every knob.
        sparsity_source, config_source, checkpoint_source: where these came from.
        largest_difference: between its feature maps and eager ones, on random images.
        description: what the JSON file beside it holds.
    """

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
    largest_difference: float
    description: dict[str, Any]


def export(
    config: PathLike | None = None,
    checkpoint: PathLike | None = None,
    *,
    out: PathLike | None = None,
    format: str | None = None,
    sparsity: PathLike | None = None,
    img_size: tuple[int, int] | None = None,
    batch_size: int = 1,
    force: bool = False,
    workspace: PathLike | None = None,
    overrides: Sequence[str] = (),
    reporter: Reporter = SILENT,
) -> ExportResult:
    """Write the backbone of a detector for another runtime. The workspace is only read.

    The file is loaded by its own runtime and compared with eager PyTorch before it gets its name,
    so a file that is there has been checked.

    Args:
        config: path or name; the workspace's last where None, else the embedded demo's.
        checkpoint: weights; those of the workspace's last phase where None.
        out: file to write; ``backbone`` and the format's suffix where None. ``<out>.json`` beside
            it says what it is.
        format: ``onnx``, ``openvino``, ``pt2`` or ``tensorrt``; where None what ``out`` ends in,
            else ``onnx``.
        sparsity: file with a configuration; where None that of the config, else the workspace's
            best, else dense.
        img_size: (height, width) in pixels; that of the config's validation where it is one fixed
            size, else 672x672, where None.
        batch_size: images a call.
        force: replace ``out`` if it is there.
        workspace: directory of the record; ``work_dirs`` where None.
        overrides: config values, ``key=value`` each.
        reporter: is told what was taken.

    Raises:
        UserError: an input is missing or wrong, the runtime is not installed, ``out`` is there
            already or cannot be written, or the file differs from eager by more than
            ``LARGEST_DIFFERENCE``; it is removed then.
    """
    form, target = _target(format, out)
    sidecar = target.with_name(target.name + ".json")
    taken = [path for path in (target, sidecar) if path.exists()]
    if taken and not force:
        raise UserError(f"{taken[0]} is there already.", "Give another --out, or --force.")
    form.check()
    ws = Workspace.open(workspace, readonly=True)
    inputs = gather_inputs(ws, "export", config, checkpoint, overrides, reporter=reporter)
    weights = require_checkpoint(inputs, "export")
    height, width = img_size or validation_size(inputs.cfg) or PAPER_IMG_SIZE
    if batch_size < 1 or min(height, width) < 32:
        raise UserError(
            f"A batch of {batch_size} images of {width}x{height} cannot be exported.",
            "Take at least one image of at least 32x32 pixels.",
        )
    chosen = choose_sparsity(inputs, sparsity, ws.best_configuration(), reporter=reporter)
    detector, said = build_detector(inputs.cfg, weights)
    reporter.note(f"weights: {said}")
    SparsityHandle(detector).set(chosen.configuration)
    backbone = detector.get_submodule("backbone")
    shape = (batch_size, 3, height, width)
    reporter.note(f"writing {form.name} for {batch_size} x {width}x{height}")
    files, difference, maps = _write_checked(form, backbone, shape, target)
    description = {
        **_identity(form, target, difference),
        "device": device_name(torch.device(form.device)),
        **_model(inputs, chosen, weights, ws),
        **_signature(inputs.cfg, shape, maps),
    }
    write_text(sidecar, json.dumps(description, indent=2) + "\n")
    files.append(sidecar)
    return ExportResult(
        format=form.name,
        out=target,
        files=files,
        megabytes=sum(path.stat().st_size for path in files) / 1e6,
        img_size=(height, width),
        batch_size=batch_size,
        precision="fp32",
        outputs=maps,
        sparsity=chosen.configuration.to_dict(),
        sparsity_source=chosen.source,
        config_source=inputs.config_source,
        checkpoint_source=inputs.checkpoint_source,
        largest_difference=difference,
        description=description,
    )


def _target(format: str | None, out: PathLike | None) -> tuple[Format, Path]:
    if format is not None and format not in FORMATS:
        raise UserError(f"There is no format {format!r}.", f"Take one of {', '.join(FORMATS)}.")
    if out is None:
        form = FORMATS[format or "onnx"]
        return form, Path(f"backbone{form.suffix}")
    target = Path(out)
    named = next((form for form in FORMATS.values() if form.suffix == target.suffix), None)
    if named is None or format not in (None, named.name):
        wanted = [form for form in FORMATS.values() if format in (None, form.name)]
        suffixes = " or ".join(f"{form.suffix} ({form.name})" for form in wanted)
        raise UserError(f"{target} is no name for an exported model.", f"Name it {suffixes}.")
    return named, target


def _write_checked(
    form: Format, backbone: nn.Module, shape: tuple[int, ...], target: Path
) -> tuple[list[Path], float, dict[str, list[int]]]:
    """Write under a name of its own, compare, and only then take the name that was asked for."""
    try:
        target.parent.mkdir(parents=True, exist_ok=True)
        with tempfile.TemporaryDirectory(prefix=f".{target.stem}-", dir=target.parent) as folder:
            eager = prepare("eager", backbone, _images(shape, 0))
            expected = eager(_images(shape, 0))
            staged = form.write(backbone, _images(shape, 0), Path(folder, target.name))
            run = _on(form.load(staged, "fp32", torch.device(form.device)), form.device)
            difference = _difference(run, eager, shape)
            if not difference <= LARGEST_DIFFERENCE:
                raise UserError(
                    f"The {form.name} file differs from eager PyTorch by {difference:.2g}, and was "
                    "removed.",
                    "Please report it with the output of `sparsevit doctor`; another --format may "
                    "do.",
                )
            # what is loaded is moved last, so that it never stands there without its weights
            staged_files = sorted(Path(folder).iterdir(), key=lambda path: path == staged)
            files = [target.with_name(path.name) for path in staged_files]
            for path, final in zip(staged_files, files, strict=True):
                os.replace(path, final)
    except OSError as error:
        raise UserError(
            f"{target} cannot be written: {error.strerror or error}.",
            "Choose a folder that you may write to and that has space left.",
        ) from error
    names = output_names(backbone, len(expected))
    return (
        files,
        difference,
        {name: list(one.shape) for name, one in zip(names, expected, strict=True)},
    )


def _on(run: Run, device: str) -> Run:
    """The same for images and feature maps on the CPU."""
    return lambda images: [one.to(CPU) for one in run(images.to(device))]


def _difference(
    run: Callable[[Tensor], list[Tensor]],
    eager: Callable[[Tensor], list[Tensor]],
    shape: tuple[int, ...],
) -> float:
    """The largest difference on random images.

    Two windows may score so nearly the same that rounding decides which of them is kept, and then
    maps differ although nothing is wrong. That befalls an image, not a model: another one is tried.
    """
    found = math.inf
    for attempt in range(ATTEMPTS):
        images = _images(shape, seed=attempt + 1)
        maps, expected = run(images), eager(images)
        if [one.shape for one in maps] != [one.shape for one in expected]:
            return math.inf
        gaps = [(a - b).abs().max().item() for a, b in zip(maps, expected, strict=True)]
        # max() would let NaN pass
        worst = math.inf if any(map(math.isnan, gaps)) else max(gaps)
        found = min(found, worst)
        if found <= LARGEST_DIFFERENCE:
            break
    return found


def _images(shape: tuple[int, ...], seed: int) -> Tensor:
    """Noise that grows from left to right, so that windows differ in how much they matter."""
    generator = torch.Generator().manual_seed(seed)
    return torch.randn(shape, generator=generator) * torch.linspace(0.5, 1.5, shape[-1])


# --- the description ----------------------------------------------------------------------------


def _identity(form: Format, target: Path, difference: float) -> dict[str, Any]:
    runtime = {}
    for name in form.packages:
        try:
            runtime[name] = metadata.version(name)
        except metadata.PackageNotFoundError:
            continue
    return {
        "file": target.name,
        "format": form.name,
        "scope": "backbone",
        "precision": "fp32",
        "created": now(),
        "versions": {**versions(), **runtime},
        "largest_difference_to_eager": difference,
    }


def _model(inputs: Inputs, chosen: Chosen, weights: Path, ws: Workspace) -> dict[str, Any]:
    name = inputs.cfg.filename
    return {
        "config": Path(name).name if name else None,
        "checkpoint": {"file": weights.name, "digest": ws.file_digest(weights)},
        "sparsity": chosen.configuration.to_dict(),
        "pruning_ratios": chosen.nested,
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
            "channels": "RGB" if given.get("bgr_to_rgb", False) else "BGR",
        },
        "outputs": [{"name": name, "shape": size} for name, size in maps.items()],
    }
