"""mmengine hooks: random sparsity while adapting, first weights, and progress for people."""

from __future__ import annotations

import ctypes
import random
import sys
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

from mmengine import dist
from mmengine.hooks import Hook
from mmengine.registry import HOOKS
from mmengine.runner import Runner

from sparsevit.engine.checkpoint import load_weights
from sparsevit.report.reporter import Task
from sparsevit.sparsity.configuration import Configuration
from sparsevit.sparsity.handle import SparsityHandle
from sparsevit.sparsity.space import Space


def configuration_at(
    space: Space, seed: int, iteration: int, rank: int | None = None
) -> Configuration:
    """The configuration of one iteration of sparsity-aware adaptation (SparseViT, section 3.2).

    It depends on nothing but its arguments, so a run that is resumed draws what it would have
    drawn.

    Args:
        space: what to draw from.
        seed: of the run.
        iteration: counted from 0.
        rank: of the process, or None for one configuration for all.
    """
    return space.sample(random.Random(f"{seed}/{iteration}/{rank}"))


@HOOKS.register_module()
class RandomSparsityHook(Hook):
    """Sparsity-aware adaptation: a new random configuration before every training iteration.

    Validation between iterations, if the config asks for any, is dense.

    Args:
        seed: of the draws; the runner's where None.
        shared: one configuration for all processes, rather than one for each.
    """

    priority = "VERY_HIGH"

    def __init__(self, seed: int | None = None, shared: bool = False) -> None:
        self.seed = seed
        self.shared = shared
        self._handle: SparsityHandle | None = None

    def before_train(self, runner: Runner) -> None:
        self._handle = SparsityHandle(runner.model)
        if self.seed is None:
            # without a seed of its own every process draws one, and they would not agree
            self.seed = int(runner.seed or 0)

    def before_train_iter(self, runner: Runner, batch_idx: int, data_batch: Any = None) -> None:
        assert self._handle is not None
        assert self.seed is not None
        rank = None if self.shared else dist.get_rank()
        self._handle.set(configuration_at(self._handle.space, self.seed, runner.iter, rank))

    def before_val(self, runner: Runner) -> None:
        self._dense()

    def after_train(self, runner: Runner) -> None:
        self._dense()

    def _dense(self) -> None:
        if self._handle is not None:
            self._handle.set(self._handle.space.dense())


class FirstWeightsHook(Hook):
    """Load weights before a training that starts from the beginning.

    Args:
        path: the checkpoint.
        tell: called with a sentence on what was loaded.
    """

    priority = "HIGHEST"

    def __init__(self, path: Path, tell: Callable[[str], None]) -> None:
        self.path = path
        self.tell = tell

    def before_train(self, runner: Runner) -> None:
        if runner.iter > 0:
            return
        report = load_weights(getattr(runner.model, "module", runner.model), self.path)
        self.tell(f"{self.path}: {report.summary()}")


class ProgressHook(Hook):
    """Shows loss and rate on a task of the reporter, and keeps the losses of the run.

    Args:
        task: has as many steps as the training has iterations.
        window: iterations that the shown loss is averaged over.
    """

    priority = "VERY_LOW"

    def __init__(self, task: Task, window: int = 50) -> None:
        self.task = task
        self.window = window
        self.losses: list[float] = []
        self._last = time.perf_counter()

    def before_train(self, runner: Runner) -> None:
        if runner.iter:
            self.task.start_at(runner.iter)
        self._last = time.perf_counter()

    def after_train_iter(
        self, runner: Runner, batch_idx: int, data_batch: Any = None, outputs: Any = None
    ) -> None:
        if outputs and "loss" in outputs:
            self.losses.append(float(outputs["loss"]))
        now = time.perf_counter()
        rate, self._last = 1.0 / max(now - self._last, 1e-9), now
        self.task.advance(detail=f"loss {self.mean_loss():.3f}  {rate:.2f} it/s")

    def mean_loss(self) -> float:
        """Mean loss of the last iterations, NaN before the first."""
        recent = self.losses[-self.window :]
        return sum(recent) / len(recent) if recent else float("nan")


class TrimMemoryHook(Hook):
    """Gives freed memory back to the system now and then while training on a CPU.

    Every batch allocates other sizes, which glibc's allocator answers by holding on to ever more:
    half of what a training process holds after 120 iterations of the demo is free memory.

    Args:
        interval: iterations between.
    """

    priority = "VERY_LOW"

    def __init__(self, interval: int = 50) -> None:
        self.interval = interval
        library = ctypes.CDLL(None) if sys.platform == "linux" else None
        # musl has no such call, and does not need it
        self._trim = getattr(library, "malloc_trim", None)

    def after_train_iter(
        self, runner: Runner, batch_idx: int, data_batch: Any = None, outputs: Any = None
    ) -> None:
        if self._trim is not None and self.every_n_train_iters(runner, self.interval):
            self._trim(0)
