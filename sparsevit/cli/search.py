"""``sparsevit search``."""

from __future__ import annotations

from typing import Annotated

import typer

from sparsevit.cli import console, run
from sparsevit.cli.options import (
    HARDWARE_PANEL,
    MEASUREMENT_PANEL,
    MOST,
    MOST_PROCESSES,
    MOST_SECONDS,
    Backend,
    BackendOption,
    BatchSizeOption,
    CheckpointArgument,
    ConfigArgument,
    DataOption,
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
    ModelOption,
    Precision,
    PrecisionOption,
    ResumeOption,
    Scope,
    ScopeOption,
    SeedOption,
    SetOption,
    SkipBrokenOption,
    ThreadsOption,
    WorkspaceOption,
)
from sparsevit.cli.own import inputs_of
from sparsevit.search.options import SearchOptions, parse_budget, parse_speedup

SEARCH_PANEL = "Search"


def search(
    config: ConfigArgument = None,
    checkpoint: CheckpointArgument = None,
    *,
    max_ms: Annotated[
        float | None,
        typer.Option(
            "--max",
            metavar="MS",
            show_default=False,
            help="Upper end of the latency interval.",
        ),
    ] = None,
    min_ms: Annotated[
        float | None,
        typer.Option(
            "--min",
            metavar="MS",
            show_default=False,
            help="Lower end of the latency interval.",
        ),
    ] = None,
    budget: Annotated[
        list[str] | None,
        typer.Option(
            metavar="MIN:MAX",
            show_default=False,
            help="A latency interval in one word, or a speedup as 1.8x or 1.6x:2x; repeat it to "
            "search several in turn.",
        ),
    ] = None,
    speedup: Annotated[
        list[str] | None,
        typer.Option(
            metavar="TIMES",
            show_default=False,
            help="How many times as fast as the dense model, such as 1.8, or 1.6:2.0; in place of "
            "milliseconds. Repeat it to search several in turn.",
        ),
    ] = None,
    pareto: Annotated[
        bool,
        typer.Option(
            "--pareto",
            help="Search the whole latency-accuracy front in one study; no interval is needed.",
        ),
    ] = SearchOptions.pareto,
    show: Annotated[
        bool,
        typer.Option(
            "--show", help="Print the workspace's last search again without computing anything."
        ),
    ] = False,
    trials: Annotated[
        int,
        typer.Option(
            min=1,
            max=MOST,
            metavar="N",
            help="Stop after scoring this many configurations.",
            rich_help_panel=SEARCH_PANEL,
        ),
    ] = SearchOptions.trials,
    max_candidates: Annotated[
        int,
        typer.Option(
            min=1,
            max=MOST,
            metavar="N",
            help="Stop after drawing this many candidates.",
            rich_help_panel=SEARCH_PANEL,
        ),
    ] = SearchOptions.max_candidates,
    sampler: Annotated[
        str | None,
        typer.Option(
            metavar="NAME",
            show_default="evolution; nsga2 with --pareto",
            help="How candidates are drawn.",
            rich_help_panel=SEARCH_PANEL,
        ),
    ] = None,
    population: Annotated[
        int,
        typer.Option(
            min=2,
            max=MOST,
            metavar="N",
            help="Number of candidates in a generation of the evolution.",
            rich_help_panel=SEARCH_PANEL,
        ),
    ] = SearchOptions.population,
    parents: Annotated[
        int,
        typer.Option(
            min=2,
            max=MOST,
            metavar="N",
            help="How many of the best of a generation breed the next.",
            rich_help_panel=SEARCH_PANEL,
        ),
    ] = SearchOptions.parents,
    mutation_prob: Annotated[
        float,
        typer.Option(
            min=0.0,
            max=1.0,
            metavar="P",
            help="Probability that a mutation redraws a knob.",
            rich_help_panel=SEARCH_PANEL,
        ),
    ] = SearchOptions.mutation_prob,
    metric: Annotated[
        str | None,
        typer.Option(
            metavar="NAME",
            show_default="the first headline metric of the task",
            help="What to maximise: any metric that `sparsevit evaluate --json` gives.",
            rich_help_panel=SEARCH_PANEL,
        ),
    ] = None,
    eval_images: EvalImagesOption = None,
    halving: Annotated[
        bool,
        typer.Option(
            "--halving",
            help="Stop weak candidates after an eighth, a quarter or a half of the images.",
            rich_help_panel=SEARCH_PANEL,
        ),
    ] = SearchOptions.halving,
    workers: Annotated[
        int,
        typer.Option(
            min=1,
            max=MOST_PROCESSES,
            metavar="N",
            help="Processes that share the work here: one per CUDA device, or several on the CPU.",
            rich_help_panel=HARDWARE_PANEL,
        ),
    ] = SearchOptions.workers,
    storage: Annotated[
        str | None,
        typer.Option(
            metavar="URL",
            show_default="a file of the run",
            help="Where to keep the studies, to share them with other machines: sqlite:///FILE, "
            "journal:///FILE.log, postgresql://USER@HOST/DATABASE.",
            rich_help_panel=SEARCH_PANEL,
        ),
    ] = None,
    study: Annotated[
        str | None,
        typer.Option(
            metavar="NAME",
            show_default="after the interval",
            help="Name of the study in the storage.",
            rich_help_panel=SEARCH_PANEL,
        ),
    ] = None,
    scope: ScopeOption = Scope(SearchOptions.scope),
    backend: BackendOption = Backend(SearchOptions.backend),
    img_size: ImgSizeOption = None,
    batch_size: BatchSizeOption = SearchOptions.batch_size,
    precision: PrecisionOption = Precision(SearchOptions.precision),
    latency: LatencyOption = HowLatency(SearchOptions.latency),
    latency_seconds: Annotated[
        float,
        typer.Option(
            min=0.01,
            max=MOST_SECONDS,
            metavar="S",
            help="Seconds to spend on timing each configuration.",
            rich_help_panel=MEASUREMENT_PANEL,
        ),
    ] = SearchOptions.latency_seconds,
    max_error: MaxErrorOption = 100 * SearchOptions.max_error,
    data: DataOption = None,
    model: ModelOption = None,
    workspace: WorkspaceOption = None,
    overrides: SetOption = None,
    skip_broken: SkipBrokenOption = False,
    seed: SeedOption = SearchOptions.seed,
    force: ForceOption = False,
    resume: ResumeOption = False,
    device: DeviceOption = None,
    threads: ThreadsOption = None,
    devices: DevicesOption = 1,
    launcher: LauncherOption = Launcher.none,
    as_json: JsonOption = False,
) -> None:
    """Search for the layerwise ratios with the best score within a latency interval.

    If it is killed, the same command continues it. By default, finetune takes the best it found.
    """
    if show:
        from sparsevit.phases.searching.show import show_search
        from sparsevit.report.search import shown_summary

        console.emit(show_search(workspace, storage), as_json, shown_summary)
        return
    from sparsevit.cli.parse import image_size

    options = SearchOptions(
        max_ms=max_ms,
        min_ms=min_ms,
        budgets=tuple(parse_budget(text) for text in budget or () if "x" not in text.lower()),
        speedups=tuple(
            parse_speedup(text)
            for text in (*(text for text in budget or () if "x" in text.lower()), *(speedup or ()))
        ),
        pareto=pareto,
        trials=trials,
        max_candidates=max_candidates,
        sampler=sampler,
        population=population,
        parents=parents,
        mutation_prob=mutation_prob,
        metric=metric,
        eval_images=eval_images,
        halving=halving,
        workers=workers,
        storage=storage,
        study=study,
        scope=scope.value,
        backend=backend.value,
        img_size=image_size(img_size),
        batch_size=batch_size,
        precision=precision.value,
        device=device,
        latency=latency.value,
        latency_seconds=latency_seconds,
        max_error=max_error / 100,
        seed=seed,
    )
    if run.start_processes(devices, launcher):
        return
    given = (config, checkpoint, data, model, workspace)
    config, checkpoint = inputs_of("search", *given, skip_broken)
    from sparsevit.phases.search import search as phase
    from sparsevit.report.search import render_progress, search_summary

    with render_progress(console.err) as on_event:
        result = phase(
            config,
            checkpoint,
            workspace=workspace,
            overrides=overrides or (),
            skip_broken=skip_broken,
            options=options,
            force=force,
            resume=resume,
            launcher=run.launched_by(launcher),
            reporter=run.reporter(),
            on_event=on_event if run.is_first() else None,
        )
    console.emit(result, as_json, search_summary)
