"""The options that commands share, so that one flag means one thing everywhere.

Annotated aliases: use them as annotations and give the default in the signature::

    def adapt(
        config: ConfigArgument = None,
        checkpoint: CheckpointArgument = None,
        workspace: WorkspaceOption = None,
        overrides: SetOption = None,
        as_json: JsonOption = False,
    ) -> None: ...
"""

from __future__ import annotations

from enum import Enum
from pathlib import Path
from typing import Annotated, Any

import typer

from sparsevit.cli.threads import use_threads
from sparsevit.threads import VARIABLE as THREADS_VARIABLE

MOST = 1_000_000
"""Of anything that is counted."""

MOST_PROCESSES = 1024
LARGEST_SEED = 2**32 - 1
"""That NumPy takes."""

MOST_SECONDS = 7 * 24 * 3600.0

RUN_PANEL = "Run"
HARDWARE_PANEL = "Hardware"


class Launcher(str, Enum):
    """How the processes of a distributed run are started (mmengine's names)."""

    none = "none"
    pytorch = "pytorch"
    slurm = "slurm"
    mpi = "mpi"


CONFIG = (
    "Config file, or a name such as sparsevit::sparsevit/mask_rcnn_sparsevit.py. A .py config is a "
    "program: run those of people you trust. "
)
CHECKPOINT = "Weights to start from. "


def _config_argument(left_out: str) -> Any:
    return typer.Argument(metavar="CONFIG", show_default=False, help=CONFIG + left_out)


def _checkpoint_argument(left_out: str) -> Any:
    return typer.Argument(metavar="CHECKPOINT", show_default=False, help=CHECKPOINT + left_out)


ConfigArgument = Annotated[
    str | None,
    _config_argument("Default: the workspace's, else the embedded demo's."),
]

PretrainConfigArgument = Annotated[str | None, _config_argument("Default: the embedded demo's.")]

LatencyConfigArgument = Annotated[
    str | None,
    _config_argument("Default: the workspace's, else the paper's Swin-T backbone alone."),
]

CheckpointArgument = Annotated[
    Path | None,
    _checkpoint_argument("Default: those of the workspace's previous phase."),
]

PretrainCheckpointArgument = Annotated[
    Path | None, _checkpoint_argument("Default: what the config says.")
]

EvaluateCheckpointArgument = Annotated[
    Path | None,
    typer.Argument(
        metavar="CHECKPOINT",
        show_default=False,
        help="Weights to evaluate. Default: those of the workspace's last phase.",
    ),
]

DATA_PANEL = "Your own data"

DataOption = Annotated[
    Path | None,
    typer.Option(
        "--data",
        metavar="DIR",
        show_default=False,
        help="Your data in place of a config: COCO files, or images and label maps, by any names; "
        "or a YAML file that says where they are.",
        rich_help_panel=DATA_PANEL,
    ),
]

ModelOption = Annotated[
    str | None,
    typer.Option(
        "--model",
        metavar="tiny|small|base|CONFIG",
        show_default="tiny",
        help="Model to make for --data, or a config to take it from.",
        rich_help_panel=DATA_PANEL,
    ),
]

WorkspaceOption = Annotated[
    Path | None,
    typer.Option(
        "--workspace",
        envvar="SPARSEVIT_WORKSPACE",
        metavar="DIR",
        show_default="work_dirs",
        help="Directory that records every phase.",
        rich_help_panel=RUN_PANEL,
    ),
]

SetOption = Annotated[
    list[str] | None,
    typer.Option(
        "--set",
        metavar="KEY=VALUE",
        show_default=False,
        help="Override a config value, e.g. --set train_dataloader.batch_size=4 (repeatable).",
        rich_help_panel=RUN_PANEL,
    ),
]

SkipBrokenOption = Annotated[
    bool,
    typer.Option(
        "--skip-broken",
        help="Decode every image first, and leave out those that cannot be used.",
        rich_help_panel=RUN_PANEL,
    ),
]

JsonOption = Annotated[
    bool,
    typer.Option(
        "--json",
        help="Print one JSON document on stdout; everything else goes to stderr.",
        rich_help_panel=RUN_PANEL,
    ),
]

SeedOption = Annotated[
    int,
    typer.Option(
        "--seed",
        min=0,
        max=LARGEST_SEED,
        metavar="N",
        help="Seed of every random draw.",
        rich_help_panel=RUN_PANEL,
    ),
]

ForceOption = Annotated[
    bool,
    typer.Option(
        "--force",
        help="Run again even if it is already done; the old run is kept.",
        rich_help_panel=RUN_PANEL,
    ),
]

ResumeOption = Annotated[
    bool,
    typer.Option(
        "--resume",
        help="Continue the last run from where it stopped.",
        rich_help_panel=RUN_PANEL,
    ),
]

SparsityOption = Annotated[
    Path | None,
    typer.Option(
        "--sparsity",
        metavar="FILE",
        show_default=False,
        help="YAML or JSON file with the ratios to use.",
    ),
]

BudgetOption = Annotated[
    str | None,
    typer.Option(
        "--budget",
        metavar="MIN:MAX",
        show_default="the first that was searched",
        help="Use the best ratios that search found for this latency interval.",
    ),
]

DevicesOption = Annotated[
    int,
    typer.Option(
        "--devices",
        min=1,
        max=MOST_PROCESSES,
        metavar="N",
        help="Start N processes, one on each device (torchrun underneath).",
        rich_help_panel=HARDWARE_PANEL,
    ),
]

LauncherOption = Annotated[
    Launcher,
    typer.Option(
        "--launcher",
        help="What started the processes, if not --devices.",
        rich_help_panel=HARDWARE_PANEL,
    ),
]

DeviceOption = Annotated[
    str | None,
    typer.Option(
        "--device",
        metavar="DEVICE",
        show_default="cuda if available, else cpu",
        help="cpu, cuda, cuda:1, mps.",
        rich_help_panel=HARDWARE_PANEL,
    ),
]

ThreadsOption = Annotated[
    int | None,
    typer.Option(
        "--threads",
        envvar=THREADS_VARIABLE,
        min=1,
        metavar="N",
        callback=use_threads,
        show_default="what PyTorch takes",
        help="CPU threads to compute with, in every runtime and process.",
        rich_help_panel=HARDWARE_PANEL,
    ),
]


class TaskName(str, Enum):
    """What a model or a dataset is for."""

    detection = "detection"
    segmentation = "segmentation"
    bev = "bev"
    classification = "classification"


class Scope(str, Enum):
    """What of a model is executed."""

    backbone = "backbone"
    detector = "detector"
    segmentor = "segmentor"
    bev_detector = "bev-detector"
    classifier = "classifier"


class Precision(str, Enum):
    """Number format that is computed in."""

    fp32 = "fp32"
    fp16 = "fp16"
    bf16 = "bf16"


class Backend(str, Enum):
    """What executes a backbone or a whole model."""

    eager = "eager"
    compile = "compile"
    onnxruntime = "onnxruntime"
    openvino = "openvino"
    tensorrt = "tensorrt"


MEASUREMENT_PANEL = "Measurement"

BackendOption = Annotated[
    Backend,
    typer.Option(
        "--backend",
        help="What runs the backbone or the whole model.",
        rich_help_panel=MEASUREMENT_PANEL,
    ),
]

EvalImagesOption = Annotated[
    int | None,
    typer.Option(
        "--eval-images",
        min=1,
        max=1_000 * MOST,
        metavar="N",
        show_default="all",
        help="Score on the first N images only.",
    ),
]

ScopeOption = Annotated[
    Scope,
    typer.Option(
        "--scope",
        help="What to time: the backbone, as in the paper, or the whole model.",
        rich_help_panel=MEASUREMENT_PANEL,
    ),
]

ImgSizeOption = Annotated[
    str | None,
    typer.Option(
        "--img-size",
        metavar="S|WxH",
        show_default="that of the config's test images",
        help="Image size to time at.",
        rich_help_panel=MEASUREMENT_PANEL,
    ),
]

BatchSizeOption = Annotated[
    int,
    typer.Option(
        "--batch-size",
        min=1,
        max=1_000 * MOST,
        metavar="N",
        help="Images per timed call (4 in the paper).",
        rich_help_panel=MEASUREMENT_PANEL,
    ),
]

PrecisionOption = Annotated[
    Precision,
    typer.Option(
        "--precision",
        help="Number format; in PyTorch fp16 and bf16 are autocast.",
        rich_help_panel=MEASUREMENT_PANEL,
    ),
]


class HowLatency(str, Enum):
    """Where the latency of many configurations comes from."""

    auto = "auto"
    predicted = "predicted"
    measured = "measured"


LatencyOption = Annotated[
    HowLatency,
    typer.Option(
        "--latency",
        help="From a calibration, measured one by one, or whichever is less work.",
        rich_help_panel=MEASUREMENT_PANEL,
    ),
]

MaxErrorOption = Annotated[
    float,
    typer.Option(
        "--max-error",
        min=0.0,
        max=1_000.0,
        metavar="PERCENT",
        help="Predict latencies only up to this mean error on held-out configurations.",
        rich_help_panel=MEASUREMENT_PANEL,
    ),
]
