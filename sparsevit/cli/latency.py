"""``sparsevit latency``."""

from __future__ import annotations

from enum import Enum
from typing import Annotated, Any

import typer

from sparsevit.cli import console, run
from sparsevit.cli.options import (
    MEASUREMENT_PANEL,
    MOST,
    MOST_SECONDS,
    Backend,
    BatchSizeOption,
    BudgetOption,
    DataOption,
    DeviceOption,
    JsonOption,
    LatencyConfigArgument,
    ModelOption,
    Precision,
    Scope,
    ScopeOption,
    SetOption,
    SparsityOption,
    ThreadsOption,
    WorkspaceOption,
)
from sparsevit.cli.own import config_of

ALL = "all"

LatencyBackend = Enum(  # type: ignore[misc]
    "LatencyBackend", {one.name: one.value for one in (*Backend,)} | {ALL: ALL}, type=str
)


def latency(
    config: LatencyConfigArgument = None,
    sparsity: SparsityOption = None,
    budget: BudgetOption = None,
    compare: Annotated[
        bool, typer.Option("--compare", help="Time the dense model as well, in alternation.")
    ] = False,
    img_size: Annotated[
        str | None,
        typer.Option(
            "--img-size",
            metavar="S|WxH",
            show_default="that of the config's test images; 672 without a config",
            help="Image size to time at.",
            rich_help_panel=MEASUREMENT_PANEL,
        ),
    ] = None,
    batch_size: BatchSizeOption = 4,
    scope: ScopeOption = Scope.backbone,
    precision: Annotated[
        Precision | None,
        typer.Option(
            "--precision",
            show_default="fp32; every one with --backend all",
            help="Number format; in PyTorch fp16 and bf16 are autocast.",
            rich_help_panel=MEASUREMENT_PANEL,
        ),
    ] = None,
    backend: Annotated[
        LatencyBackend,
        typer.Option(
            "--backend",
            help="What runs the backbone or the whole model; all: a table of those that are "
            "available here.",
            rich_help_panel=MEASUREMENT_PANEL,
        ),
    ] = LatencyBackend.eager,  # type: ignore[attr-defined]
    warmup: Annotated[
        int | None,
        typer.Option(
            min=0,
            max=MOST,
            metavar="N",
            show_default="500, or as many as a third of --seconds allows",
            help="Warm-up calls before the timed ones.",
            rich_help_panel=MEASUREMENT_PANEL,
        ),
    ] = None,
    repeats: Annotated[
        int | None,
        typer.Option(
            min=1,
            max=MOST,
            metavar="N",
            show_default="500, or as many as --seconds allows",
            help="Timed calls.",
            rich_help_panel=MEASUREMENT_PANEL,
        ),
    ] = None,
    seconds: Annotated[
        float,
        typer.Option(
            min=0.01,
            max=MOST_SECONDS,
            metavar="S",
            help="Seconds to spend if --repeats is not given.",
            rich_help_panel=MEASUREMENT_PANEL,
        ),
    ] = 10.0,
    data: DataOption = None,
    model: ModelOption = None,
    workspace: WorkspaceOption = None,
    overrides: SetOption = None,
    device: DeviceOption = None,
    threads: ThreadsOption = None,
    as_json: JsonOption = False,
) -> None:
    """Time a backbone or a whole model, dense and sparse.

    With nothing in the workspace it times the paper's Swin-T backbone, which needs no data and no
    checkpoint: `sparsevit latency --img-size 672`.
    """
    from sparsevit.cli.parse import image_size
    from sparsevit.latency.backends import PRECISIONS

    config = config_of("latency", config, data, model, workspace)
    from sparsevit.phases import latency as phase
    from sparsevit.report.latency import backends_table, latency_table

    options: dict[str, Any] = {
        "workspace": workspace,
        "sparsity": sparsity,
        "budget": budget,
        "compare": compare,
        "scope": scope.value,
        "img_size": image_size(img_size),
        "batch_size": batch_size,
        "device": device,
        "warmup": warmup,
        "repeats": repeats,
        "seconds": seconds,
        "overrides": overrides or (),
        "reporter": run.reporter(),
    }
    if backend.value == ALL:
        precisions = PRECISIONS if precision is None else (precision.value,)
        every = phase.latency_in_backends(config, precisions=precisions, **options)
        console.emit(every, as_json, backends_table)
        return
    number = Precision.fp32 if precision is None else precision
    one = phase.latency(config, backend=backend.value, precision=number.value, **options)
    console.emit(one, as_json, latency_table)
