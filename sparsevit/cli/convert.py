"""``sparsevit convert``."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from sparsevit.cli import console, run
from sparsevit.cli.options import (
    CheckpointArgument,
    ConfigArgument,
    JsonOption,
    SetOption,
    WorkspaceOption,
)

if TYPE_CHECKING:
    from sparsevit.phases.convert import ConvertResult


def convert(
    config: ConfigArgument = None,
    checkpoint: CheckpointArgument = None,
    out: Annotated[
        Path | None,
        typer.Option(
            "--out",
            "-o",
            metavar="FILE",
            show_default="converted.pth",
            help="File of the weights, .pth or .safetensors; the config is written beside it.",
        ),
    ] = None,
    force: Annotated[
        bool, typer.Option("--force", help="Replace files that already exist.")
    ] = False,
    workspace: WorkspaceOption = None,
    overrides: SetOption = None,
    as_json: JsonOption = False,
) -> None:
    """Write a model with pruned heads and neurons as a smaller dense one.

    What it gives out stays the same. The config beside the weights builds it.
    """
    from sparsevit.phases.convert import convert as phase

    result = phase(
        config,
        checkpoint,
        out=out,
        force=force,
        workspace=workspace,
        overrides=overrides or (),
        reporter=run.reporter(),
    )
    console.emit(result, as_json, _render)


def _render(result: ConvertResult) -> str:
    before, after = result.parameters_before / 1e6, result.parameters / 1e6
    return (
        f"Written to {result.weights}, with its config {result.config}\n"
        f"{before:.3f} -> {after:.3f} million parameters; largest difference of what the backbone "
        f"gives out: {result.difference:.1e}"
    )
