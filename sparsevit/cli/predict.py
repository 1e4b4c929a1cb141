"""``sparsevit predict``."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Annotated, Any

import typer

from sparsevit.cli import console, run
from sparsevit.cli.evaluate import Split
from sparsevit.cli.options import (
    CHECKPOINT,
    CONFIG,
    MOST,
    Backend,
    BackendOption,
    BudgetOption,
    DataOption,
    DeviceOption,
    JsonOption,
    ModelOption,
    Precision,
    PrecisionOption,
    Scope,
    ScopeOption,
    SetOption,
    SkipBrokenOption,
    SparsityOption,
    ThreadsOption,
    WorkspaceOption,
)
from sparsevit.cli.own import inputs_of
from sparsevit.errors import UserError


def predict(
    images: Annotated[
        list[str] | None,
        typer.Argument(
            metavar="IMAGES",
            show_default=False,
            help="Images, folders of images, videos, the number of a camera, or the address of a "
            "stream. Default: the first images of the validation set.",
        ),
    ] = None,
    out: Annotated[
        Path | None,
        typer.Option(
            "--out",
            "-o",
            metavar="DIR",
            show_default="the run's, in the workspace",
            help="Folder for the pictures and predictions.json.",
        ),
    ] = None,
    compare: Annotated[
        bool,
        typer.Option("--compare", help="Draw dense and sparse side by side, with milliseconds."),
    ] = False,
    windows: Annotated[
        bool, typer.Option("--windows", help="Also draw what each stage skipped.")
    ] = False,
    show: Annotated[
        bool, typer.Option("--show", help="Show the pictures in a window; files only with --out.")
    ] = False,
    least_score: Annotated[
        float,
        typer.Option(
            "--min-score",
            min=0.0,
            max=1.0,
            metavar="S",
            help="Draw objects from this score; predictions.json has all.",
        ),
    ] = 0.3,
    frames: Annotated[
        int | None,
        typer.Option(
            "--frames",
            min=1,
            max=MOST,
            metavar="N",
            show_default="all of a video, 8 of the validation set",
            help="At most N frames of each video or camera, or images of the validation set.",
        ),
    ] = None,
    split: Annotated[
        Split | None,
        typer.Option(
            show_default="val, or test where the config has no val",
            help="Whose images are taken where none are given.",
        ),
    ] = None,
    force: Annotated[
        bool, typer.Option("--force", help="Replace pictures that are there already.")
    ] = False,
    config: Annotated[
        str | None,
        typer.Option(
            "--config",
            metavar="CONFIG",
            show_default="the workspace's, else the embedded demo's",
            help=CONFIG.rstrip(),
        ),
    ] = None,
    checkpoint: Annotated[
        Path | None,
        typer.Option(
            "--checkpoint",
            metavar="CHECKPOINT",
            show_default="those of the workspace's last phase",
            help=CHECKPOINT.rstrip(),
        ),
    ] = None,
    exported: Annotated[
        Path | None,
        typer.Option(
            "--exported",
            metavar="FILE",
            show_default=False,
            help="Execute the backbone, or the whole model, by a file of `sparsevit export`. A "
            ".pt2 is compiled code: use those of people you trust.",
        ),
    ] = None,
    data: DataOption = None,
    model: ModelOption = None,
    workspace: WorkspaceOption = None,
    sparsity: SparsityOption = None,
    budget: BudgetOption = None,
    dense: Annotated[
        bool, typer.Option("--dense", help="Run at ratio 0, whatever the config says.")
    ] = False,
    overrides: SetOption = None,
    skip_broken: SkipBrokenOption = False,
    scope: ScopeOption = Scope.backbone,
    backend: BackendOption = Backend.eager,
    precision: PrecisionOption = Precision.fp32,
    device: DeviceOption = None,
    threads: ThreadsOption = None,
    as_json: JsonOption = False,
) -> None:
    """Draw what a model finds in images, videos, or what a camera sees."""
    config, checkpoint = inputs_of(
        "predict", config, checkpoint, data, model, workspace, skip_broken
    )
    if exported is not None and (backend, precision) != (Backend.eager, Precision.fp32):
        raise UserError(
            f"--exported {exported} says what executes the model.",
            "Leave out --backend and --precision.",
        )
    from sparsevit.phases.predict import predict as phase
    from sparsevit.report.predictions import predictions_table

    result = phase(
        images or (),
        config=config,
        checkpoint=checkpoint,
        workspace=workspace,
        out=out,
        sparsity=sparsity,
        budget=budget,
        dense=dense,
        exported=exported,
        overrides=overrides or (),
        compare=compare,
        windows=windows,
        show=_window() if show else None,
        frames=frames,
        split=None if split is None else split.value,
        least_score=least_score,
        skip_broken=skip_broken,
        force=force,
        scope=scope.value,
        backend=backend.value,
        precision=precision.value,
        device=device,
        reporter=run.reporter(),
    )
    console.emit(result, as_json, predictions_table)


def _window() -> Callable[[Any, bool], bool]:
    """Shows a picture in a window, and waits for a key unless more follow at once; ``q``, or
    closing the window, ends it.

    Raises:
        UserError: there is no display.
    """
    import matplotlib.pyplot as plt

    figure = plt.figure("sparsevit predict")
    if plt.get_backend().lower() == "agg":
        raise UserError(
            "There is no display here to show pictures on.",
            "Leave out --show: they are written as files.",
        )
    axes = figure.add_axes((0, 0, 1, 1))
    axes.set_axis_off()
    pressed: list[str] = []
    figure.canvas.mpl_connect("key_press_event", lambda event: pressed.append(str(event.key)))
    picture: Any = None

    def show(pixels: Any, moving: bool) -> bool:
        nonlocal picture
        if picture is None or picture.get_array().shape != pixels.shape:
            axes.clear()
            axes.set_axis_off()
            picture = axes.imshow(pixels)
        picture.set_data(pixels)
        if moving:
            plt.pause(0.001)
        else:
            figure.canvas.draw_idle()
            figure.waitforbuttonpress()
        return "q" not in pressed and bool(plt.fignum_exists(figure.number))

    return show
