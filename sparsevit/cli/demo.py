"""``sparsevit demo``."""

from __future__ import annotations

from typing import Annotated

import typer

from sparsevit.cli import console, run
from sparsevit.cli.options import (
    MOST,
    DeviceOption,
    ForceOption,
    JsonOption,
    SeedOption,
    TaskName,
    ThreadsOption,
    WorkspaceOption,
)


def demo(
    task: Annotated[
        TaskName,
        typer.Option("--task", help="Whether to train a detector or a segmentor."),
    ] = TaskName.detection,
    short: Annotated[
        bool,
        typer.Option(
            "--short",
            help="Run only a few iterations per phase: this shows that it works, not how well.",
        ),
    ] = False,
    trials: Annotated[
        int | None,
        typer.Option(
            min=1,
            max=MOST,
            metavar="N",
            show_default="24; 3 if --short",
            help="Configurations to score.",
        ),
    ] = None,
    workspace: WorkspaceOption = None,
    device: DeviceOption = None,
    threads: ThreadsOption = None,
    seed: SeedOption = 0,
    force: ForceOption = False,
    as_json: JsonOption = False,
) -> None:
    """Run every phase on a small dataset that it generates, and show a table of the results.

    About 9 minutes on two cores. If it is killed, the same command continues it.
    """
    from sparsevit.phases.demo import demo as phase
    from sparsevit.report.demo import demo_table
    from sparsevit.report.search import render_progress

    with render_progress(console.err) as on_event:
        result = phase(
            task=task.value,
            workspace=workspace,
            short=short,
            trials=trials,
            device=device,
            seed=seed,
            force=force,
            reporter=run.reporter(),
            on_event=on_event,
        )
    console.emit(result, as_json, demo_table)
