"""``sparsevit demo``."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer

from sparsevit.cli import console, run
from sparsevit.cli.options import (
    MOST,
    DataOption,
    DeviceOption,
    ForceOption,
    JsonOption,
    ModelOption,
    SeedOption,
    TaskName,
    ThreadsOption,
    WorkspaceOption,
)
from sparsevit.cli.own import config_of
from sparsevit.errors import UserError


def demo(
    task: Annotated[
        TaskName | None,
        typer.Option(
            "--task",
            show_default="detection; with --data its own",
            help="Whether to train a detector, a segmentor, a 3D detector of six cameras, or a "
            "classifier.",
        ),
    ] = None,
    data: DataOption = None,
    model: ModelOption = None,
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
            show_default="20; 3 if --short",
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

    About 9 minutes on two cores; bev: 15. If it is killed, the same command continues it. With
    `--data` it runs them on your own.
    """
    config = made_config(task, data, model, workspace)
    from sparsevit.phases.demo import demo as phase
    from sparsevit.report.demo import demo_table
    from sparsevit.report.search import render_progress

    with render_progress(console.err) as on_event:
        result = phase(
            config,
            task=(task or TaskName.detection).value,
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


def made_config(
    task: TaskName | None, data: Path | None, model: str | None, workspace: Path | None
) -> str | None:
    """The config for own data; None without any.

    Raises:
        UserError: as :func:`config_of`; or a task is given too.
    """
    if data is None and model is None:
        return None
    if task is not None:
        raise UserError(
            "--task says what to generate, and --data what to use in its place.",
            "Leave --task out: it follows from the data.",
        )
    return config_of("demo", None, data, model, workspace)
