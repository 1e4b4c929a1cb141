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
    from rich.table import Table

    from sparsevit.phases.data import DataResult, ScenesResult, ShowResult
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
        help="The dataset's folder. Default: data/shapes in the workspace; bev: data/scenes; "
        "classification: data/labelled.",
    ),
]

ShownRootArgument = Annotated[
    Path | None,
    typer.Argument(
        metavar="ROOT",
        show_default=False,
        help="A COCO dataset's folder or annotation file, a folder with nuScenes tables, or own "
        "data in any form that `data check` knows. "
        "Default: the latest in the workspace.",
    ),
]


@app.command(cls=Command)
def make(
    root: RootArgument = None,
    train: Annotated[
        int | None,
        typer.Option(
            metavar="N",
            show_default="1000; bev: 300",
            help="Number of training images; bev: of samples, six images each.",
        ),
    ] = None,
    val: Annotated[
        int | None,
        typer.Option(
            metavar="N", show_default="200; bev: 60", help="Number of validation images or samples."
        ),
    ] = None,
    img_size: Annotated[
        str | None,
        typer.Option(
            metavar="S|WxH",
            show_default="224; bev: 320x180",
            help="Image size in pixels, e.g. 224 or 320x200.",
        ),
    ] = None,
    objects: Annotated[
        str | None,
        typer.Option(
            metavar="MIN:MAX",
            show_default="2:8; bev: 30:50",
            help="Minimum and maximum number of objects per image; bev: per scene. Not for "
            "classification.",
        ),
    ] = None,
    object_size: Annotated[
        str | None,
        typer.Option(
            metavar="MIN:MAX",
            show_default="12:48 at 224 px, in proportion at other sizes; classification: 67:157",
            help="Smallest and largest object diameter in pixels; not for bev.",
        ),
    ] = None,
    classes: Annotated[
        str | None,
        typer.Option(metavar="A,B,...", show_default="all", help="Classes to draw."),
    ] = None,
    masks: Annotated[
        str | None,
        typer.Option(
            metavar="mixed|polygon|rle",
            show_default="mixed",
            help="Format of the masks; mixed: RLE where one polygon is not enough. For detection "
            "and segmentation.",
        ),
    ] = None,
    image_format: Annotated[
        str | None,
        typer.Option(
            "--format",
            metavar="png|jpg",
            show_default="png; bev: jpg",
            help="Image file format.",
        ),
    ] = None,
    task: Annotated[
        TaskName,
        typer.Option(
            "--task",
            help="segmentation: write a label map of each image too. bev: streets seen by six "
            "cameras, in nuScenes' format. classification: one shape in an image, and a folder "
            "for each class.",
        ),
    ] = TaskName.detection,
    seed: SeedOption = 0,
    force: Annotated[
        bool, typer.Option("--force", help="Replace a dataset that already exists.")
    ] = False,
    workspace: WorkspaceOption = None,
    as_json: JsonOption = False,
) -> None:
    """Make a dataset of small shapes on busy backgrounds: boxes and masks, and label maps if asked.

    With --task classification, of one shape each in folders of classes; with --task bev, of streets
    with boxes in 3D. The same options give the same files. A dataset that already exists is used as
    it is; an interrupted one is completed.
    """
    from rich.progress import Progress

    from sparsevit.data import spec
    from sparsevit.phases import data

    size = spec.parse_size(img_size) if img_size is not None else None
    given = {
        "train": train,
        "val": val,
        "width": size and size[0],
        "height": size and size[1],
        "seed": seed,
        "objects": spec.parse_objects(objects) if objects is not None else None,
        "object_size": spec.parse_range(object_size, "Object size") if object_size else None,
        "classes": spec.parse_classes(classes) if classes is not None else None,
        "masks": masks,
        "image_format": image_format,
        "labels": True if task is TaskName.segmentation else None,
    }
    chosen = {name: value for name, value in given.items() if value is not None}
    place = Path(root or data.default_root(workspace, task.value))
    wanted = data.spec_of(task.value, chosen)
    require_disk(
        data.least_bytes(wanted),
        place,
        f"A dataset of {data.image_count(wanted)} images of {wanted.width}x{wanted.height}",
        "Make fewer (--train, --val) or smaller ones (--img-size), or give another ROOT.",
    )
    with Progress(console=console.err, transient=True) as progress:
        bar = progress.add_task("Painting images", total=wanted.train + wanted.val)

        def advance(done: int, total: int) -> None:
            progress.update(bar, completed=done, total=total)

        if isinstance(wanted, spec.DatasetSpec):
            made = data.make_data(place, wanted, force=force, on_image=advance)
            console.emit(made, as_json, _render_made)
        else:
            scenes = data.make_scenes_data(place, wanted, force=force, on_sample=advance)
            console.emit(scenes, as_json, _render_scenes)


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
    tables: Annotated[
        str | None,
        typer.Option(
            metavar="VERSION",
            show_default="the only one there is",
            help="Which nuScenes tables of the folder, such as v1.0-mini.",
        ),
    ] = None,
    workspace: WorkspaceOption = None,
    as_json: JsonOption = False,
) -> None:
    """Draw some images of a COCO dataset with their boxes and masks, coloured by class.

    Of a folder with nuScenes tables, samples: their six images, and the view from above. Of any
    other data that `data check` knows, images with their label maps, or the names of their classes.
    """
    from sparsevit.phases import data

    place = root or data.latest_root(workspace)
    if tables is not None or data.has_scenes(place):
        shown = data.show_scenes(place, out, split, images, tables)
    elif (own := data.own_data(place, split)) is not None:
        shown = data.show_own(own, out, split, images)
    else:
        shown = data.show_data(place, out, split, images, image_dir)
    console.emit(shown, as_json, _render_shown)


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


_VERBS = {"made": "Made", "completed": "Completed", "reused": "Already there:"}


def _render_made(result: DataResult) -> Any:
    from rich.table import Table

    table = Table(title=f"{_VERBS[result.state]} {result.root} ({result.seconds:.1f} s)")
    if "folders" in result.spec:
        return _render_classes(table, result)
    for heading in ("split", "images", "objects", "small", "medium", "large", "polygons", "RLE"):
        table.add_column(heading, justify="left" if heading == "split" else "right")
    splits: Any = result.splits
    for split, s in splits.items():
        counts = (s.images, s.annotations, s.small, s.medium, s.large, s.polygons, s.rles)
        table.add_row(split, *(str(count) for count in counts))
    return table


def _render_classes(table: Table, result: DataResult) -> Table:
    splits: Any = result.splits
    for heading in ("class", *splits):
        table.add_column(heading, justify="left" if heading == "class" else "right")
    for name in sorted(result.spec["classes"]):
        table.add_row(name, *(str(one.classes.get(name, 0)) for one in splits.values()))
    table.add_section()
    table.add_row("all", *(str(one.images) for one in splits.values()))
    return table


def _render_scenes(result: ScenesResult) -> Any:
    from rich.table import Table

    table = Table(title=f"{_VERBS[result.state]} {result.root} ({result.seconds:.1f} s)")
    splits = result.splits
    table.add_column("")
    for split in splits:
        table.add_column(split, justify="right")
    for row in ("scenes", "samples", "images"):
        table.add_row(row, *(str(getattr(one, row)) for one in splits.values()))
    for name in result.spec["classes"]:
        table.add_row(name, *(str(one.boxes[name]) for one in splits.values()))
    return table


def _render_shown(result: ShowResult) -> str:
    return f"{result.images} images drawn in {result.out}"
