"""``sparsevit search``."""

from __future__ import annotations

from enum import Enum
from typing import Annotated

import typer

from sparsevit.cli import console, run
from sparsevit.cli.options import (
    MEASUREMENT_PANEL,
    Backend,
    BackendOption,
    BatchSizeOption,
    CheckpointArgument,
    ConfigArgument,
    DeviceOption,
    DevicesOption,
    EvalImagesOption,
    ForceOption,
    HowLatency,
    ImgSizeOption,
    JsonOption,
    LatencyOption,
    Launcher,
    LauncherOption,
    MaxErrorOption,
    Precision,
    PrecisionOption,
    ResumeOption,
    Scope,
    ScopeOption,
    SeedOption,
    SetOption,
    WorkspaceOption,
)

SEARCH_PANEL = "Search"


class Sampler(str, Enum):
    """How candidates are drawn."""

    evolution = "evolution"
    random = "random"


def search(
    config: ConfigArgument = None,
    checkpoint: CheckpointArgument = None,
    *,
    max_ms: Annotated[
        float,
        typer.Option("--max", metavar="MS", help="Upper end of the latency interval."),
    ],
    min_ms: Annotated[
        float,
        typer.Option("--min", metavar="MS", help="Lower end of the latency interval."),
    ],
    trials: Annotated[
        int,
        typer.Option(
            min=1,
            metavar="N",
            help="Stop when this many configurations were scored.",
            rich_help_panel=SEARCH_PANEL,
        ),
    ] = 10_000,
    max_candidates: Annotated[
        int,
        typer.Option(
            min=1,
            metavar="N",
            help="Stop when this many candidates were drawn.",
            rich_help_panel=SEARCH_PANEL,
        ),
    ] = 10_000,
    sampler: Annotated[
        Sampler, typer.Option(help="How candidates are drawn.", rich_help_panel=SEARCH_PANEL)
    ] = Sampler.evolution,
    population: Annotated[
        int,
        typer.Option(
            min=2,
            metavar="N",
            help="Candidates in a generation of the evolution.",
            rich_help_panel=SEARCH_PANEL,
        ),
    ] = 100,
    parents: Annotated[
        int,
        typer.Option(
            min=2,
            metavar="N",
            help="The best of a generation, which breed the next.",
            rich_help_panel=SEARCH_PANEL,
        ),
    ] = 25,
    mutation_prob: Annotated[
        float,
        typer.Option(
            min=0.0,
            max=1.0,
            metavar="P",
            help="Chance that a mutation draws a knob anew.",
            rich_help_panel=SEARCH_PANEL,
        ),
    ] = 0.1,
    metric: Annotated[
        str,
        typer.Option(
            metavar="NAME",
            help="What to maximise: bbox_mAP, segm_mAP, bbox_mAP_50, ...",
            rich_help_panel=SEARCH_PANEL,
        ),
    ] = "bbox_mAP",
    eval_images: EvalImagesOption = None,
    scope: ScopeOption = Scope.backbone,
    backend: BackendOption = Backend.eager,
    img_size: ImgSizeOption = None,
    batch_size: BatchSizeOption = 4,
    precision: PrecisionOption = Precision.fp32,
    latency: LatencyOption = HowLatency.auto,
    latency_seconds: Annotated[
        float,
        typer.Option(
            min=0.01,
            metavar="S",
            help="Seconds to spend on timing each configuration.",
            rich_help_panel=MEASUREMENT_PANEL,
        ),
    ] = 5.0,
    max_error: MaxErrorOption = 3.0,
    workspace: WorkspaceOption = None,
    overrides: SetOption = None,
    seed: SeedOption = 0,
    force: ForceOption = False,
    resume: ResumeOption = False,
    device: DeviceOption = None,
    devices: DevicesOption = 1,
    launcher: LauncherOption = Launcher.none,
    as_json: JsonOption = False,
) -> None:
    """Search the layerwise ratios with the best score whose latency lies in an interval.

    Killed and started again, it goes on. The best is what finetune takes by itself.
    """
    from sparsevit.cli.parse import image_size

    size = image_size(img_size)
    if run.start_processes(devices, launcher):
        return
    from sparsevit.phases.search import search as phase
    from sparsevit.report.search import render_progress, search_summary

    with render_progress(console.err) as on_event:
        result = phase(
            config,
            checkpoint,
            max_ms=max_ms,
            min_ms=min_ms,
            workspace=workspace,
            overrides=overrides or (),
            trials=trials,
            max_candidates=max_candidates,
            sampler=sampler.value,
            population=population,
            parents=parents,
            mutation_prob=mutation_prob,
            metric=metric,
            eval_images=eval_images,
            scope=scope.value,
            backend=backend.value,
            img_size=size,
            batch_size=batch_size,
            precision=precision.value,
            latency=latency.value,
            latency_seconds=latency_seconds,
            max_error=max_error / 100,
            device=device,
            seed=seed,
            force=force,
            resume=resume,
            launcher=run.launched_by(launcher),
            reporter=run.reporter(),
            on_event=on_event if run.is_first() else None,
        )
    console.emit(result, as_json, search_summary)
