"""``sparsevit data``: make the embedded dataset, look at it, and check one of your own."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from sparsevit.cli import console
from sparsevit.cli.commands import Command, Group
from sparsevit.cli.options import JsonOption, SeedOption, TaskName, WorkspaceOption
from sparsevit.limits import require_disk

if TYPE_CHECKING:
    from sparsevit.phases.data import DataResult, ShowResult
    from sparsevit.phases.own import CheckResult

app = typer.Typer(
    name="data",
    help="Make the embedded dataset (COCO format), look at it, check your own.",
    cls=Group,
    no_args_is_help=True,
    add_completion=False,
    rich_markup_mode="rich",
)


RootArgument = Annotated[
    Path | None,
    typer.Argument(
        metavar="ROOT",
        show_default=False,
        help="The dataset's folder. Default: data/shapes in the workspace.",
    ),
]

ShownRootArgument = Annotated[
    Path | None,
    typer.Argument(
        metavar="ROOT",
        show_default=False,
        help="A COCO dataset's folder or annotation file. Default: the latest in the workspace.",
    ),
]


@app.command(cls=Command)
def make(
    root: RootArgument = None,
    train: Annotated[int, typer.Option(metavar="N", help="Number of training images.")] = 1000,
    val: Annotated[int, typer.Option(metavar="N", help="Number of validation images.")] = 200,
    img_size: Annotated[
        str, typer.Option(metavar="S|WxH", help="Image size in pixels, e.g. 224 or 320x200.")
    ] = "224",
    objects: Annotated[
        str,
        typer.Option(metavar="MIN:MAX", help="Minimum and maximum number of objects per image."),
    ] = "2:8",
    object_size: Annotated[
        str | None,
        typer.Option(
            metavar="MIN:MAX",
            show_default="12:48 at 224 px, in proportion at other sizes",
            help="Smallest and largest object diameter in pixels.",
        ),
    ] = None,
    classes: Annotated[
        str | None,
        typer.Option(metavar="A,B,...", show_default="all", help="Classes to draw."),
    ] = None,
    masks: Annotated[
        str,
        typer.Option(
            metavar="mixed|polygon|rle",
            help="Format of the masks; mixed: RLE where one polygon is not enough.",
        ),
    ] = "mixed",
    image_format: Annotated[
        str, typer.Option("--format", metavar="png|jpg", help="Image file format.")
    ] = "png",
    task: Annotated[
        TaskName,
        typer.Option("--task", help="segmentation: write a label map of each image too."),
    ] = TaskName.detection,
    seed: SeedOption = 0,
    force: Annotated[
        bool, typer.Option("--force", help="Replace a dataset that already exists.")
    ] = False,
    workspace: WorkspaceOption = None,
    as_json: JsonOption = False,
) -> None:
    """Make a dataset of small shapes on busy backgrounds: boxes and masks, and label maps if asked.

    The same options give the same files. A dataset that already exists is used as it is; an
    interrupted one is completed.
    """
    from sparsevit.data import spec
    from sparsevit.phases import data

    width, height = spec.parse_size(img_size)
    wanted = spec.DatasetSpec(
        train=train,
        val=val,
        width=width,
        height=height,
        seed=seed,
        objects=spec.parse_objects(objects),
        object_size=spec.parse_range(object_size, "Object size") if object_size else None,
        classes=spec.parse_classes(classes) if classes is not None else spec.CLASSES,
        masks=masks,
        image_format=image_format,
        labels=task is TaskName.segmentation,
    )
    place = root or data.default_root(workspace)
    require_disk(
        (train + val) * width * height * spec.LEAST_BYTES_A_PIXEL[image_format] // 100,
        Path(place),
        f"A dataset of {train + val} images of {width}x{height}",
        "Make fewer (--train, --val) or smaller ones (--img-size), or give another ROOT.",
    )
    from rich.progress import Progress

    with Progress(console=console.err, transient=True) as progress:
        bar = progress.add_task("Painting images", total=train + val)
        result = data.make_data(
            place,
            wanted,
            force=force,
            on_image=lambda done, total: progress.update(bar, completed=done, total=total),
        )
    console.emit(result, as_json, _render_made)


@app.command(cls=Command)
def show(
    root: ShownRootArgument = None,
    out: Annotated[
        Path, typer.Option("--out", "-o", metavar="FILE.png", help="Picture to write.")
    ] = Path("dataset.png"),
    split: Annotated[
        str, typer.Option(metavar="train|val", help="Which split of a folder to draw.")
    ] = "val",
    images: Annotated[
        int, typer.Option(min=1, max=1000, metavar="N", help="How many images to draw.")
    ] = 8,
    image_dir: Annotated[
        Path | None,
        typer.Option(
            "--image-dir",
            metavar="DIR",
            show_default="found beside the annotations",
            help="Folder that the file names in the annotations are relative to.",
        ),
    ] = None,
    workspace: WorkspaceOption = None,
    as_json: JsonOption = False,
) -> None:
    """Draw some images of a COCO dataset with their boxes and masks, coloured by class."""
    from sparsevit.phases import data

    result = data.show_data(root or data.latest_root(workspace), out, split, images, image_dir)
    console.emit(result, as_json, _render_shown)


@app.command(cls=Command)
def check(
    root: Annotated[
        Path,
        typer.Argument(
            metavar="DIR",
            show_default=False,
            help="Folder of your data, or a YAML file that says where it is.",
        ),
    ],
    out: Annotated[
        Path, typer.Option("--out", "-o", metavar="FILE.png", help="Contact sheet to write.")
    ] = Path("data.png"),
    images: Annotated[
        int, typer.Option(min=1, max=1000, metavar="N", help="How many images to draw.")
    ] = 12,
    as_json: JsonOption = False,
) -> None:
    """Look at your own data: counts, sizes, windows, what cannot be used; and draw some of it.

    The exit code is 2 where something cannot be used.
    """
    from sparsevit.phases.own import check_data

    result = check_data(root, out, images)
    console.emit(result, as_json, _render_checked)
    if result.faults:
        raise typer.Exit(2)


def _render_checked(result: CheckResult) -> Any:
    from sparsevit.report.own import check_report

    return check_report(result)


def _render_made(result: DataResult) -> Any:
    from rich.table import Table

    verbs = {"made": "Made", "completed": "Completed", "reused": "Already there:"}
    table = Table(title=f"{verbs[result.state]} {result.root} ({result.seconds:.1f} s)")
    for heading in ("split", "images", "objects", "small", "medium", "large", "polygons", "RLE"):
        table.add_column(heading, justify="left" if heading == "split" else "right")
    for split, s in result.splits.items():
        counts = (s.images, s.annotations, s.small, s.medium, s.large, s.polygons, s.rles)
        table.add_row(split, *(str(count) for count in counts))
    return table


def _render_shown(result: ShowResult) -> str:
    return f"{result.images} images drawn in {result.out}"
