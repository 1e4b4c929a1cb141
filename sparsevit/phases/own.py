"""A config for a user's own data, and an account of that data."""

from __future__ import annotations

import hashlib
import json
import os
import re
from collections.abc import Mapping
from dataclasses import dataclass, field, replace
from pathlib import Path

import torch
from mmengine.config import Config

from sparsevit.atomic import write_atomic
from sparsevit.data.own import Choice, OwnData, recognise
from sparsevit.engine.config import dump_config, load_config
from sparsevit.errors import UserError, shortened
from sparsevit.phases.inputs import BEFORE, PathLike, open_workspace
from sparsevit.tasks import TASKS, Task, task_of
from sparsevit.tasks.own import STRIDES, WINDOW
from sparsevit.workspace import Workspace
from sparsevit.workspace.record import unwritable

TINY = "tiny"
FOLDER = "data"
NAME = "config.py"

# What of a config has an effect; the rest are names that its parts were made of.
_KEPT = re.compile(
    r"model|\w+_dataloader|\w+_evaluator|train_cfg|val_cfg|test_cfg|optim_wrapper|param_scheduler|"
    r"default_scope|default_hooks|custom_hooks|custom_imports|env_cfg|log_processor|log_level|"
    r"visualizer|vis_backends|randomness|auto_scale_lr|find_unused_parameters|phases|sparsity|"
    r"load_from"
)


@dataclass(frozen=True)
class _Machine:
    """What a built-in model takes here.

    Attributes:
        most: longest side of an image, in pixels, on a CPU and on a GPU.
        rate: learning rate.
        batch: on a CPU.
        bytes: of memory that a pixel takes in training.
        speed: pixels that one core trains in a second.
    """

    most: tuple[int, int]
    rate: float
    batch: int
    bytes: int
    speed: float


# bytes and speed: measured in training on 512x384 photographs, one thread of a Xeon; of the tasks
# the larger
_MACHINES = {
    TINY: _Machine((512, 1024), 1e-3, 4, 1_100, 0.35e6),
    "small": _Machine((640, 1024), 2e-4, 2, 5_000, 0.043e6),
    "base": _Machine((640, 1024), 1e-4, 2, 7_500, 0.031e6),
}
_EPOCHS = 36
_LEAST_ITERATIONS = 300
_MINUTES = 10
"""That the smallest model trains on a CPU at the most."""

_MOST_BATCH = 16
_MEMORY_SHARE = 0.7
_WARMUP = 50
# of pretraining's iterations, as in the demo
_SHARES = {"adapt": 0.34, "finetune": 0.22}
_CHECKPOINTS = 7


@dataclass(frozen=True)
class OwnConfig:
    """A config that was made of data.

    Attributes:
        config: the file.
        task: name of the task.
        model: built-in model, or config that the model is from.
        data: the folder.
        choices: what was found and chosen.
    """

    config: Path
    task: str
    model: str
    data: Path
    choices: tuple[Choice, ...]


@dataclass(frozen=True)
class SplitCount:
    """Images of a split; how many have nothing annotated; class -> objects or pixels, images."""

    images: int
    empty: int
    outside: int
    amounts: Mapping[str, int]
    images_with: Mapping[str, int]


@dataclass(frozen=True)
class StageWindows:
    """Windows of a stage of the backbone, and the share of them that is padding."""

    stage: int
    map: tuple[int, int]
    windows: tuple[int, int]
    padding: float


@dataclass(frozen=True)
class CheckResult:
    """What is in own data.

    Attributes:
        task, root, classes: of the data.
        splits: name -> counts.
        sizes: (width, height, how many images), the most frequent first.
        choices: what was found, and would be chosen for the smallest model.
        windows: of each stage at the image size that would be chosen.
        warnings: what may be meant, and is worth a look.
        faults: what cannot be used.
        picture: the contact sheet, if one was made.
    """

    task: str
    root: Path
    classes: tuple[str, ...]
    splits: dict[str, SplitCount]
    sizes: list[tuple[int, int, int]]
    choices: tuple[Choice, ...]
    windows: list[StageWindows]
    warnings: list[str] = field(default_factory=list)
    faults: list[str] = field(default_factory=list)
    picture: Path | None = None


def make_config(
    data: PathLike,
    model: PathLike | None = None,
    *,
    workspace: PathLike | None = None,
    skip_broken: bool = False,
) -> OwnConfig:
    """Make the config of a user's own data, in ``data/config.py`` of the workspace.

    It is then a config like any other: to read, to edit and to give to a phase.

    Args:
        data: a folder, a COCO file, or a YAML file with ``task, images, annotations, classes,
            image_size, void, seed``.
        model: ``tiny``, ``small``, ``base``, or a config by path or name; ``tiny`` where None.
        workspace: ``work_dirs`` where None.
        skip_broken: leave label maps that cannot be used out, rather than refuse the data.

    Raises:
        UserError: the data is not known, cannot be used, or does not suit the model; or the config
            of before was edited.
    """
    found = recognise(data)
    # of boxes the phases tell themselves, and can leave them out
    broken = len(found.faults) if found.has_label_maps else 0
    if broken:
        more = f" (and {broken - 3} more)" if broken > 3 else ""
        told = f"{'; '.join(found.faults[:3])}{more}"
        if not skip_broken:
            raise UserError(
                f"{told}.",
                f"Mend them or remove them; `sparsevit data check {data}` shows all. Or leave them "
                "out: --skip-broken.",
            )
        found = replace(found, said=(*found.said, Choice("left out", f"{broken} images", told)))
    ws = open_workspace(workspace)
    folder = ws.path / FOLDER
    name = os.fspath(model) if model is not None else TINY
    files = {split: _file(found, split, folder) for split in found.splits}
    cfg, choices, _ = _fitted(found, name, {split: path for split, (path, _) in files.items()})
    text = dump_config(Config({key: cfg[key] for key in cfg if _KEPT.fullmatch(key)}))
    text = _headed(text, found.root, name)
    path = folder / NAME
    _refuse_edited(path)
    try:
        folder.mkdir(parents=True, exist_ok=True)
        for place, content in files.values():
            if content is not None and not place.is_file():
                write_atomic(place, content)
        write_atomic(path, text)
    except OSError as error:
        raise unwritable(ws.path, error) from error
    return OwnConfig(path, found.task, name, found.root, choices)


def remembered(phase: str, workspace: PathLike | None) -> Path | None:
    """The config of own data in a workspace, where no run before a phase has one."""
    ws = Workspace.open(workspace, readonly=True)
    path = ws.path / FOLDER / NAME
    before = BEFORE.get(phase, ("finetune", "search", "adapt", "pretrain"))
    return path if path.is_file() and ws.resolve_config(None, before) is None else None


def check_data(data: PathLike, out: PathLike | None = None, images: int = 12) -> CheckResult:
    """Look at all of a user's own data.

    Args:
        data: see :func:`make_config`.
        out: picture to write, of a few training images; None for none.
        images: how many are in it.

    Raises:
        UserError: the data is not known, or the picture cannot be written.
    """
    found = recognise(data, look=True)
    files = {name: split.annotations for name, split in found.splits.items()}
    _, choices, size = _fitted(found, TINY, files)
    picture = None
    if out is not None:
        # matplotlib is needed for nothing else here
        from sparsevit.data.picture import draw_own

        picture = Path(out)
        draw_own(found, TASKS[found.task].palette(len(found.classes)), picture, images)
    return CheckResult(
        task=found.task,
        root=found.root,
        classes=found.classes,
        splits={
            name: SplitCount(len(s.names), s.empty, s.outside, s.amounts, s.images_with)
            for name, s in found.splits.items()
        },
        sizes=[(*s, n) for s, n in sorted(found.sizes.items(), key=lambda row: -row[1])],
        choices=choices,
        windows=[_windows(stage, size) for stage in range(len(STRIDES))],
        warnings=_warnings(found, size),
        faults=list(found.faults),
        picture=picture,
    )


# --- the config ----------------------------------------------------------------------------------


def _fitted(
    data: OwnData, model: str, files: Mapping[str, Path]
) -> tuple[Config, tuple[Choice, ...], tuple[int, int]]:
    """The config, what was chosen, and (width, height) of images for the network."""
    task = TASKS[data.task]
    built_in = model in task.own_models
    cfg = load_config(task.own_template if built_in else model)
    _refuse_other(cfg, task, model, data)
    for key in ("embedded_dataset", "load_from"):
        cfg.pop(key, None)
    if built_in and model != TINY:
        cfg.model = load_config(task.own_models[model]).model
        for part in (cfg.model, cfg.model.backbone):
            # no download: weights are given as a file
            part.pop("init_cfg", None)
            part.pop("pretrained", None)
    # supplies the ops of a missing mmcv._ext
    cfg.setdefault("custom_imports", {"imports": ["sparsevit.models"]})
    task.fit_data(cfg, data, files)
    splits = ", ".join(f"{len(split.names)} {name}" for name, split in data.splits.items())
    names = shortened(", ".join(data.classes), 60)
    choices = [
        Choice("data", data.task, f"{splits} images in {data.root}"),
        Choice("classes", f"{len(data.classes)}: {names}", data.names_from),
        *data.said,
    ]
    if not built_in:
        for key in ("image_size", "iterations"):
            if getattr(data, key) is not None:
                raise UserError(
                    f"{key} is given, and the model is the config {model}.",
                    "Leave it out, and change it in that config.",
                )
        choices.append(Choice("model", model, "image size and schedule are the config's own"))
        return cfg, tuple(choices), (0, 0)
    machine = _MACHINES[model]
    cuda = torch.cuda.is_available()
    size, suited = task.suit(cfg, data, machine.most[cuda])
    choices.append(Choice("model", model, _parts(cfg)))
    return cfg, (*choices, *suited, *_schedule(cfg, data, size, model)), size


def _refuse_other(cfg: Config, task: Task, model: str, data: OwnData) -> None:
    if cfg.get("model") is None or task_of(cfg) is not task:
        raise UserError(
            f"{model} is no config for {task.name}, and {data.root} has data for that.",
            f"Give one of {', '.join(task.own_models)}, or a config for {task.name}.",
        )
    for key in ("train_dataloader", "val_dataloader", "test_dataloader"):
        if not (cfg.get(key) or {}).get("dataset"):
            raise UserError(f"{model} has no {key} with a dataset.", "Use a whole config.")


def _parts(cfg: Config) -> str:
    backbone = cfg.model.backbone
    arch = backbone.get("arch", backbone)
    if isinstance(arch, str):
        return f"{cfg.model.type}, Swin, {arch}"
    return f"{cfg.model.type}, Swin of {arch.embed_dims} channels, depths {arch.depths}"


def _schedule(cfg: Config, data: OwnData, size: tuple[int, int], model: str) -> list[Choice]:
    """Set batch and iterations to what suits data and machine."""
    machine, images = _MACHINES[model], len(data.splits["train"].names)
    pixels = size[0] * size[1]
    batch, why = _batch(machine, pixels, TASKS[data.task].own_batch)
    batch = min(batch, images)
    by_epochs = round(_EPOCHS * images / batch)
    iterations, told = max(by_epochs, _LEAST_ITERATIONS), f"{_EPOCHS} epochs"
    if by_epochs < _LEAST_ITERATIONS:
        told = f"{_EPOCHS} epochs would be {by_epochs}, which is few"
    cores = _cores()
    if data.iterations is not None:
        iterations, told = data.iterations, f"{data.iterations * batch / images:.0f} epochs, given"
    if not torch.cuda.is_available():
        if model == TINY and data.iterations is None:
            most = round(_MINUTES * 60 * machine.speed * cores / pixels / batch)
            if most < iterations:
                iterations = max(most, _LEAST_ITERATIONS)
                told = f"{iterations * batch / images:.0f} epochs"
        minutes = iterations * batch * pixels / (machine.speed * cores) / 60
        about = f"{minutes:.0f} minutes" if minutes < 100 else f"{minutes / 60:.0f} hours"
        told += f"; about {about} on {cores} core{'s' if cores > 1 else ''}"
    for split in ("train", "val", "test"):
        loader = cfg[f"{split}_dataloader"]
        loader.batch_size = batch
        loader.num_workers = min(4, cores // 2) if cores > 2 else 0
        loader.persistent_workers = loader.num_workers > 0
    _set_iterations(cfg, iterations)
    rate = cfg.optim_wrapper.optimizer
    factor = machine.rate / rate.lr
    rate.lr = machine.rate
    for phase, share in _SHARES.items():
        changes = cfg.phases[phase]
        changes.optim_wrapper.optimizer.lr *= factor
        count = max(1, round(iterations * share))
        changes.train_cfg.max_iters = count
        for one in changes.param_scheduler:
            one.end = count
    cfg.default_hooks.checkpoint.interval = max(20, iterations // _CHECKPOINTS)
    return [
        Choice("batch", f"{batch} images", why),
        Choice("iterations", f"{iterations}", told),
    ]


def _set_iterations(cfg: Config, iterations: int) -> None:
    warmup = min(_WARMUP, iterations // 10)
    cfg.train_cfg.max_iters = iterations
    first, *rest = cfg.param_scheduler
    first.end = warmup
    for one in rest:
        one.begin, one.end = warmup, iterations


def _batch(machine: _Machine, pixels: int, times: int) -> tuple[int, str]:
    each = machine.bytes * pixels
    if torch.cuda.is_available():
        memory = torch.cuda.get_device_properties(0).total_memory
        most, why = _MOST_BATCH * times, f"the GPU has {memory / 1e9:.0f} GB"
    else:
        # not what is free now: a run that was killed goes on with the same config
        memory, most = _memory(), machine.batch * times
        why = "this machine has no GPU"
    batch = most
    while batch > 1 and batch * each > _MEMORY_SHARE * memory:
        batch //= 2
    if batch < most:
        why += f", and an image takes about {each / 1e9:.1f} GB in training"
    return batch, why


def _memory() -> int:
    try:
        return os.sysconf("SC_PHYS_PAGES") * os.sysconf("SC_PAGE_SIZE")
    except (AttributeError, ValueError, OSError):
        return 2**62


def _cores() -> int:
    if hasattr(os, "sched_getaffinity"):
        return len(os.sched_getaffinity(0))
    return os.cpu_count() or 1


# --- files ---------------------------------------------------------------------------------------


def _file(data: OwnData, split: str, folder: Path) -> tuple[Path, str | None]:
    """The annotation file or the list of names of a split, and what to write to it."""
    one = data.splits[split]
    if data.has_label_maps:
        text, end = "".join(f"{name}\n" for name in one.names), "txt"
    elif one.labels:
        lines = zip(one.names, one.labels, strict=True)
        text, end = "".join(f"{name} {label}\n" for name, label in lines), "txt"
    elif one.rewritten is not None:
        text, end = json.dumps(one.rewritten), "json"
    else:
        return one.annotations, None
    digest = hashlib.sha256(text.encode()).hexdigest()[:8]
    return folder / f"{split}-{digest}.{end}", text


def _headed(text: str, root: Path, model: str) -> str:
    digest = hashlib.sha256(text.encode()).hexdigest()
    said = ascii(f"{root} with --model {model}")[1:-1]
    return (
        f"# Made by --data {said}.\n"
        "# Edit it as you like, and give it as CONFIG.\n"
        f"# {digest}\n{text}"
    )


def _refuse_edited(path: Path) -> None:
    if not path.exists():
        return
    try:
        found = path.read_text(encoding="utf-8")
    except (OSError, ValueError):
        found = ""
    match = re.fullmatch(r"# Made.*\n# Edit.*\n# ([0-9a-f]{64})\n(.*)", found, re.DOTALL)
    if match is None or hashlib.sha256(match[2].encode()).hexdigest() != match[1]:
        raise UserError(
            f"{path} has been edited since it was made.",
            f"Give it in place of --data, as CONFIG: {path}. Or remove it, to make it anew.",
        )


# --- what to look at -----------------------------------------------------------------------------


def _windows(stage: int, size: tuple[int, int]) -> StageWindows:
    across, down = (-(-side // STRIDES[stage]) for side in size)
    windows = -(-across // WINDOW), -(-down // WINDOW)
    held = windows[0] * windows[1] * WINDOW**2
    return StageWindows(stage, (across, down), windows, 1 - across * down / held)


def _warnings(data: OwnData, size: tuple[int, int]) -> list[str]:
    found = []
    for name, split in data.splits.items():
        if split.empty:
            found.append(f"{name}: {split.empty} of {len(split.names)} images have no annotation")
        if split.outside:
            found.append(f"{name}: {split.outside} boxes leave their image; they are cut off")
    for name, only in data.in_one_split_only().items():
        other = "val" if only == "train" else "train"
        found.append(f"class {shortened(name)} is in {only} only, not in {other}")
    never = [n for n in data.classes if not any(s.amounts[n] for s in data.splits.values())]
    if never:
        found.append(f"no annotation has the class {shortened(', '.join(never))}")
    across, down = _windows(len(STRIDES) - 1, size).windows
    if across * down < 4:
        found.append(
            f"at {size[0]}x{size[1]} the last stage has {across * down} "
            f"window{'s' if across * down > 1 else ''}: there is little to skip in it"
        )
    return found
