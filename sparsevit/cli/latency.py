"""``sparsevit latency``."""

from __future__ import annotations

from typing import Annotated

import typer

from sparsevit.cli import console, run
from sparsevit.cli.options import (
    MEASUREMENT_PANEL,
    MOST,
    MOST_SECONDS,
    Backend,
    BackendOption,
    BatchSizeOption,
    BudgetOption,
    DeviceOption,
    JsonOption,
    LatencyConfigArgument,
    Precision,
    PrecisionOption,
    Scope,
    ScopeOption,
    SetOption,
    SparsityOption,
    WorkspaceOption,
)


def latency(
    config: LatencyConfigArgument = None,
    sparsity: SparsityOption = None,
    budget: BudgetOption = None,
    compare: Annotated[
        bool, typer.Option("--compare", help="Time the dense model as well, in alternation.")
    ] = False,
    img_size: Annotated[
        str,
        typer.Option(
            metavar="S|WxH", help="Image size to time at.", rich_help_panel=MEASUREMENT_PANEL
        ),
    ] = "672",
    batch_size: BatchSizeOption = 4,
    scope: ScopeOption = Scope.backbone,
    precision: PrecisionOption = Precision.fp32,
    backend: BackendOption = Backend.eager,
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
    workspace: WorkspaceOption = None,
    overrides: SetOption = None,
    device: DeviceOption = None,
    as_json: JsonOption = False,
) -> None:
    """Time a backbone or a whole detector, dense and sparse.

    With nothing in the workspace it times the paper's Swin-T backbone, which needs no data and no
    checkpoint: `sparsevit latency --img-size 672`.
    """
    from sparsevit.cli.parse import image_size
    from sparsevit.latency.execution import PAPER_IMG_SIZE
    from sparsevit.phases.latency import latency as phase
    from sparsevit.report.latency import latency_table

    result = phase(
        config,
        workspace=workspace,
        sparsity=sparsity,
        budget=budget,
        compare=compare,
        scope=scope.value,
        backend=backend.value,
        img_size=image_size(img_size) or PAPER_IMG_SIZE,
        batch_size=batch_size,
        device=device,
        precision=precision.value,
        warmup=warmup,
        repeats=repeats,
        seconds=seconds,
        overrides=overrides or (),
        reporter=run.reporter(),
    )
    console.emit(result, as_json, latency_table)
