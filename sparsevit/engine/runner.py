"""A training run: mmengine's Runner, told where to write, what to start from and to be quiet."""

from __future__ import annotations

import copy
import importlib.util
import logging
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch
from mmengine.config import Config
from mmengine.dist import master_only
from mmengine.hooks import Hook
from mmengine.logging import MMLogger
from mmengine.model import revert_sync_batchnorm
from mmengine.registry import DefaultScope, init_default_scope
from mmengine.runner import Runner
from mmengine.visualization import Visualizer
from torch import nn
from torch.utils._pytree import tree_leaves
from torch.utils.data import DataLoader

from sparsevit.atomic import write_atomic
from sparsevit.engine import distributed
from sparsevit.engine.checkpoint import load_weights, make_loading_safe, read_checkpoint
from sparsevit.engine.config import apply_sparsity, dump_config
from sparsevit.engine.datasets import name_broken_images
from sparsevit.engine.finite import FiniteHook, diverged, not_finite
from sparsevit.engine.hooks import (
    FirstWeightsHook,
    MethodsHook,
    OwnCheckpointsHook,
    ProgressHook,
    RandomSparsityHook,
    TrimMemoryHook,
)
from sparsevit.engine.mistakes import config_mistakes
from sparsevit.engine.quiet import mute_console, quiet_libraries
from sparsevit.errors import RunFailed, UserError
from sparsevit.limits import require_memory
from sparsevit.report.reporter import SILENT, Reporter
from sparsevit.tasks import Task, task_of

TRAINING_CONFIG = "training.py"
# Images in a batch beyond which its size in memory is worth a look.
_LARGE_BATCH = 256


@dataclass(frozen=True)
class Training:
    """What :func:`train` made.

    Attributes:
        model: the trained model, on the device it was trained on.
        checkpoint: the last checkpoint.
        iterations: iterations of the whole run, also those before it was resumed.
        loss: mean loss of the last iterations, None where none ran.
        visualizer: mmengine's, which wrote the losses.
    """

    model: nn.Module
    checkpoint: Path
    iterations: int
    loss: float | None
    visualizer: Visualizer

    def write_scores(self, scores: Mapping[str, Mapping[str, float]], step: int) -> None:
        """Write scores to where the losses are: ``scalars.json``, and TensorBoard if there is any.

        Args:
            scores: name of a setting -> its metrics; each is called ``setting/metric``.
            step: the iteration they are of.
        """
        scalars = {
            f"{setting}/{name}": value
            for setting, metrics in scores.items()
            for name, value in metrics.items()
            # COCO gives -1 where there is no object of a size
            if value >= 0
        }
        self.visualizer.add_scalars(scalars, step)
        self.visualizer.close()


class QuietRunner(Runner):
    """mmengine's Runner with its log in files only, and its config in a file of its own."""

    @master_only
    def dump_config(self) -> None:
        # mmengine takes the name of the config's file, and a run keeps another one under it:
        # the config that the next phase starts from
        write_atomic(Path(self.work_dir, TRAINING_CONFIG), dump_config(self.cfg))

    @staticmethod
    def build_dataloader(*args: Any, **kwargs: Any) -> Any:
        loader = Runner.build_dataloader(*args, **kwargs)
        name_broken_images(loader.dataset)
        return loader

    def wrap_model(self, model_wrapper_cfg: Any, model: nn.Module) -> Any:
        if not torch.cuda.is_available():
            # statistics over all processes are for accelerators, as mmengine has it for one process
            model = revert_sync_batchnorm(model)
        return super().wrap_model(model_wrapper_cfg, model)

    def build_logger(self, *args: Any, **kwargs: Any) -> MMLogger:
        logger = super().build_logger(*args, **kwargs)
        mute_console(logger)
        logging.captureWarnings(True)
        warnings_logger = logging.getLogger("py.warnings")
        warnings_logger.propagate = False
        for handler in logger.handlers:
            warnings_logger.addHandler(handler)
        return logger


def train(
    cfg: Config,
    directory: Path,
    *,
    start_from: Path | None = None,
    resume: bool = False,
    random_sparsity: bool = False,
    shared_sparsity: bool = False,
    seed: int = 0,
    launcher: str = "none",
    description: str = "train",
    reporter: Reporter = SILENT,
) -> Training:
    """Train the model of a config.

    Args:
        cfg: of a task, not changed.
        directory: where checkpoints and logs go.
        start_from: weights to start from, unless a run is resumed.
        resume: go on from the newest readable checkpoint in ``directory``, if there is one.
        random_sparsity: draw a new configuration at every iteration.
        shared_sparsity: the same one in every process.
        seed: of weights, data order and configurations.
        launcher: who started the processes; ``none`` for one.
        description: of the progress shown.
        reporter: who is told.

    Raises:
        UserError: weights that do not fit, or a file that the config names and that is missing.
        RunFailed: the loss or a weight is no longer finite.
    """
    make_loading_safe()
    resume_from = newest_checkpoint(directory) if resume else None
    cfg = training_config(
        cfg, directory, seed, launcher, resume_from, has_weights=start_from is not None
    )
    _drop_hook(cfg, "RandomSparsityHook")
    with quiet_libraries(), config_mistakes(cfg, "The training"):
        runner = QuietRunner.from_cfg(cfg)
        apply_sparsity(cfg, runner.model)
        # builds the loop, and so reads the dataset, which pycocotools announces on stdout
        iterations = int(runner.max_iters)
        _require_batches(runner.train_dataloader)
    methods = MethodsHook(seed, from_weights=start_from is not None)
    hooks: list[Hook] = [FiniteHook(), methods, OwnCheckpointsHook(directory)]
    if not torch.cuda.is_available():
        hooks.append(TrimMemoryHook())
    if random_sparsity:
        hooks.append(RandomSparsityHook(seed=seed, shared=shared_sparsity))
    if resume_from is not None:
        reporter.note(f"resuming from {resume_from}")
    elif start_from is not None:
        hooks.append(FirstWeightsHook(start_from, reporter.note))
    with reporter.task(description, iterations) as task:
        progress = ProgressHook(task)
        for hook in (*hooks, progress):
            runner.register_hook(hook)
        guarded = config_mistakes(cfg, "The training")
        with quiet_libraries(), guarded, _saying_what_is_left(runner, directory):
            runner.train()
    # the first process writes it and removes older ones; the others come here sooner
    found = newest_checkpoint(directory) if distributed.is_first() else None
    checkpoint = distributed.share(found)
    if checkpoint is None:
        raise UserError(
            f"Training wrote no checkpoint to {directory}.",
            "Configure default_hooks.checkpoint to save at least the last iteration.",
        )
    model = getattr(runner.model, "module", runner.model)
    return Training(
        model,
        checkpoint,
        runner.iter,
        progress.mean_loss() if progress.losses else None,
        runner.visualizer,
    )


@contextmanager
def _saying_what_is_left(runner: Runner, directory: Path) -> Iterator[None]:
    """Say of a training that diverged which of its checkpoints is good.

    Raises:
        RunFailed: also in place of what weights that are not finite lead to.
    """
    try:
        yield
    except UserError:
        raise
    except Exception as error:
        failed = error if isinstance(error, RunFailed) else diverged(runner.model)
        if failed is None:
            raise
        left = newest_checkpoint(directory)
        said = f"The last good checkpoint is {left}." if left else "No checkpoint was saved."
        raise RunFailed(f"{failed.problem} {said}", failed.remedy) from error


def _require_batches(loader: DataLoader[Any]) -> None:
    """Refuse a training set from which no batch ever comes."""
    images = len(loader.dataset)  # type: ignore[arg-type]
    if not images:
        raise UserError(
            "The training set has no images: everything is left out of it.",
            "Check filter_cfg, indices and metainfo of train_dataloader.dataset.",
        )
    size = loader.batch_size or getattr(loader.batch_sampler, "batch_size", None) or 1
    if size <= _LARGE_BATCH:
        return
    inputs = tree_leaves(loader.dataset[0].get("inputs"))
    values = sum(one.numel() for one in inputs if isinstance(one, torch.Tensor))
    require_memory(
        4 * values * size,
        f"A batch of train_dataloader.batch_size={size} images",
        f"Lower it, to {images} or less: the training set has {images} images.",
    )


def training_config(
    cfg: Config,
    directory: Path,
    seed: int,
    launcher: str,
    resume_from: Path | None,
    has_weights: bool,
) -> Config:
    """The config of a run: the user's, with what the run decides filled in."""
    cfg = copy.deepcopy(cfg)
    cfg.work_dir = str(directory)
    cfg.launcher = launcher
    cfg.resume = resume_from is not None
    cfg.load_from = str(resume_from) if resume_from else None
    cfg.randomness = {
        "seed": seed,
        **{k: v for k, v in cfg.get("randomness", {}).items() if k != "seed"},
    }
    # mmengine keeps loggers and visualizers by this name as long as the process lives
    cfg.experiment_name = f"{directory.parent.name}-{directory.name}"
    env = dict(cfg.get("env_cfg", {}))
    env["dist_cfg"] = {"backend": distributed.backend()}
    cfg.env_cfg = env
    backends = [{"type": "LocalVisBackend"}]
    if importlib.util.find_spec("tensorboard") is not None:
        backends.append({"type": "TensorboardVisBackend"})
    # the config's own write beside ours; a name would make it that of the run before
    told = {k: v for k, v in (cfg.get("visualizer") or {}).items() if k != "name"}
    theirs = told.pop("vis_backends", None) or []
    theirs = list(theirs) if isinstance(theirs, (list, tuple)) else [theirs]
    kinds = {one.get("type") for one in theirs}
    theirs += [one for one in backends if one["type"] not in kinds]
    cfg.visualizer = {"type": task_of(cfg).visualizer, **told, "vis_backends": theirs}
    checkpoint = cfg.setdefault("default_hooks", {}).setdefault("checkpoint", {})
    checkpoint.setdefault("type", "CheckpointHook")
    checkpoint.setdefault("max_keep_ckpts", 2)
    checkpoint["save_last"] = True
    if launcher != "none":
        # a block that keeps no window leaves its parameters without gradient
        cfg.model_wrapper_cfg = {
            "type": "MMDistributedDataParallel",
            "find_unused_parameters": True,
            "broadcast_buffers": False,
            # mmengine names a CUDA device for a model on the CPU too
            **({} if torch.cuda.is_available() else {"device_ids": None}),
            **cfg.get("model_wrapper_cfg", {}),
        }
    _drop_only_validation_at_the_end(cfg)
    if has_weights or resume_from is not None:
        forget_first_weights(cfg.model)
    if cfg.optim_wrapper.get("type") == "AmpOptimWrapper" and not torch.cuda.is_available():
        # mmengine's mixed precision is for accelerators
        cfg.optim_wrapper["type"] = "OptimWrapper"
        for key in ("loss_scale", "dtype", "use_fsdp"):
            cfg.optim_wrapper.pop(key, None)
    return cfg


def forget_first_weights(model_cfg: Any) -> None:
    """Drop every ``init_cfg`` that would load a file which a checkpoint replaces anyway."""
    if isinstance(model_cfg, dict):
        init = model_cfg.get("init_cfg")
        if isinstance(init, dict) and init.get("type") == "Pretrained":
            model_cfg["init_cfg"] = None
        for value in model_cfg.values():
            forget_first_weights(value)
    elif isinstance(model_cfg, (list, tuple)):
        for value in model_cfg:
            forget_first_weights(value)


def newest_checkpoint(directory: Path) -> Path | None:
    """The newest checkpoint of a run that can be read, and whose weights are finite.

    A kill may have cut the last one short.
    """
    candidates = sorted(directory.glob("*.pth"), key=lambda p: p.stat().st_mtime_ns, reverse=True)
    for path in candidates:
        try:
            weights = read_checkpoint(path)["state_dict"]
        except UserError:
            continue
        if not not_finite(weights, buffers=lambda name: True):
            return path
    return None


def build_model(
    cfg: Config, checkpoint: Path | None = None, device: torch.device | str = "cpu"
) -> tuple[nn.Module, str | None]:
    """The model of a config in evaluation mode, and a sentence on the weights it loaded.

    Raises:
        UserError: the checkpoint cannot be read or is for a different model; or no task supports
            the model.
    """
    make_loading_safe()
    task = task_of(cfg)
    init_default_scope(cfg.get("default_scope", task.scope))
    model_cfg = copy.deepcopy(cfg.model)
    forget_first_weights(model_cfg)
    with quiet_libraries():
        with config_mistakes(cfg, "The model"):
            model: Any = task.build(model_cfg)
        apply_sparsity(cfg, model)
        said = None
        if checkpoint is None:
            with config_mistakes(cfg, "The model"):
                model.init_weights()
        else:
            said = load_weights(model, checkpoint).summary()
    # as mmdet's init_detector leaves it: what fails later can name its key
    model.cfg = cfg
    model.to(device)
    model.eval()
    return model, said


def build_part(part_cfg: Mapping[str, Any], task: Task) -> nn.Module:
    """A part of a task's models, such as a backbone, its weights not initialised."""
    # another scope may be in force in the caller's process
    with DefaultScope.overwrite_default_scope(task.scope):
        return task.build(dict(part_cfg))


def _drop_only_validation_at_the_end(cfg: Config) -> None:
    """A phase validates what it made; where the loop would do so once, at its end, it need not."""
    loop = cfg.train_cfg
    length = loop.get("max_iters") or loop.get("max_epochs")
    if length and loop.get("val_interval", 1) >= length:
        cfg.val_cfg = cfg.val_dataloader = cfg.val_evaluator = None


def _drop_hook(cfg: Config, name: str) -> None:
    """The run decides on sparsity; a config made for plain mmdet tools may bring a hook for it."""
    if cfg.get("custom_hooks"):
        cfg.custom_hooks = [h for h in cfg.custom_hooks if h.get("type") != name]
