"""``sparsevit export``."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from sparsevit.cli import console, run
from sparsevit.cli.options import (
    MOST,
    BudgetOption,
    CheckpointArgument,
    ConfigArgument,
    DataOption,
    JsonOption,
    ModelOption,
    Scope,
    SetOption,
    SparsityOption,
    ThreadsOption,
    WorkspaceOption,
)
from sparsevit.cli.own import inputs_of

if TYPE_CHECKING:
    from sparsevit.phases.export import ExportResult


def export(
    config: ConfigArgument = None,
    checkpoint: CheckpointArgument = None,
    format: Annotated[
        str | None,
        typer.Option(
            "--format",
            metavar="onnx|openvino|pt2|tensorrt",
            show_default="from the suffix of FILE, else onnx",
            help="onnx: for ONNX Runtime and others; openvino: .xml and .bin; pt2: compiled by "
            "AOTInductor for this CPU; tensorrt: an engine for this GPU.",
        ),
    ] = None,
    out: Annotated[
        Path | None,
        typer.Option(
            "--out",
            "-o",
            metavar="FILE",
            show_default="the scope and the format's suffix",
            help="File to write; FILE.json beside it describes it, and a script runs it.",
        ),
    ] = None,
    scope: Annotated[
        Scope,
        typer.Option(
            "--scope",
            help="backbone: feature maps; detector: boxes, scores, labels and masks; "
            "segmentor, classifier: logits.",
        ),
    ] = Scope.backbone,
    sparsity: SparsityOption = None,
    budget: BudgetOption = None,
    img_size: Annotated[
        str | None,
        typer.Option(
            "--img-size",
            metavar="S|WxH",
            show_default="that of the config's test images",
            help="Image size of the exported model.",
        ),
    ] = None,
    batch_size: Annotated[
        int,
        typer.Option("--batch-size", min=1, max=1_000 * MOST, metavar="N", help="Images per call."),
    ] = 1,
    force: Annotated[
        bool, typer.Option("--force", help="Replace FILE if it already exists.")
    ] = False,
    threads: ThreadsOption = None,
    data: DataOption = None,
    model: ModelOption = None,
    workspace: WorkspaceOption = None,
    overrides: SetOption = None,
    as_json: JsonOption = False,
) -> None:
    """Write the backbone or the whole model at its sparsity for another runtime.

    Image size, batch and ratios are fixed in the file; which windows it keeps is decided for each
    image. The file is kept only if it agrees with PyTorch.
    """
    from sparsevit.cli.parse import image_size

    config, checkpoint = inputs_of("export", config, checkpoint, data, model, workspace)
    from sparsevit.phases.export import export as phase

    result = phase(
        config,
        checkpoint,
        scope=scope.value,
        out=out,
        format=format,
        sparsity=sparsity,
        budget=budget,
        img_size=image_size(img_size),
        batch_size=batch_size,
        force=force,
        workspace=workspace,
        overrides=overrides or (),
        reporter=run.reporter(),
    )
    console.emit(result, as_json, _render)


def _render(result: ExportResult) -> str:
    height, width = result.img_size
    shapes = ", ".join(f"{name} {'x'.join(map(str, s))}" for name, s in result.outputs.items())
    differences = ", ".join(f"{value:.1e} {kind}" for kind, value in result.differences.items())
    compared = (
        "" if result.compared is None else f" ({result.compared} detections, boxes in pixels)"
    )
    script = "" if result.script is None else f", run by {result.script.name}"
    return (
        f"Written to {result.out} ({result.format}, {result.megabytes:.1f} MB), described in "
        f"{result.files[-1].name}{script}\n"
        f"images {result.batch_size}x3x{height}x{width} -> {shapes}\n"
        f"largest difference to eager PyTorch: {differences}{compared}"
    )
