"""``sparsevit export-config``."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from sparsevit.cli import console
from sparsevit.cli.options import (
    BudgetOption,
    ConfigArgument,
    DataOption,
    JsonOption,
    ModelOption,
    SetOption,
    SparsityOption,
    WorkspaceOption,
)
from sparsevit.cli.own import config_of

if TYPE_CHECKING:
    from sparsevit.phases.export_config import ExportConfigResult


def export_config(
    config: ConfigArgument = None,
    sparsity: SparsityOption = None,
    budget: BudgetOption = None,
    out: Annotated[
        Path | None,
        typer.Option(
            "--out",
            "-o",
            metavar="FILE",
            show_default=False,
            help="File to write. Default: standard output.",
        ),
    ] = None,
    format: Annotated[
        str | None,
        typer.Option(
            "--format",
            metavar="py|yaml|json",
            show_default="from the suffix of FILE, else py",
            help="py: a whole config for mmdet's or mmseg's tools; yaml, json: the "
            "configuration alone.",
        ),
    ] = None,
    force: Annotated[
        bool, typer.Option("--force", help="Replace FILE if it already exists.")
    ] = False,
    data: DataOption = None,
    model: ModelOption = None,
    workspace: WorkspaceOption = None,
    overrides: SetOption = None,
    as_json: JsonOption = False,
) -> None:
    """Write a config with the sparsity in it, for plain mmdet tools to train and test.

    It stands alone (no _base_), and needs sparsevit to be installed where it is used. The sparsity
    is that of --sparsity, else the config's own, else the best that search found.
    """
    config = config_of("export-config", config, data, model, workspace)
    from sparsevit.phases.export_config import export_config as export
    from sparsevit.report.reporter import ConsoleReporter

    result = export(
        config,
        sparsity=sparsity,
        budget=budget,
        out=out,
        format=format,
        force=force,
        workspace=workspace,
        overrides=overrides or (),
        reporter=ConsoleReporter(console.err),
    )
    console.emit(result, as_json, _render)


def _render(result: ExportConfigResult) -> str | None:
    if result.out is not None:
        return f"Written to {result.out}"
    # as it is: rich would wrap it and read markup in its brackets
    console.write_stdout(result.text)
    return None
