"""mmengine hooks: random sparsity, what methods do in training, first weights, progress."""

from __future__ import annotations

import ctypes
import sys
import time
from collections.abc import Callable, Iterator, Mapping
from pathlib import Path
from typing import Any

from mmengine import dist
from mmengine.hooks import Hook
from mmengine.optim import OptimWrapper, OptimWrapperDict
from mmengine.registry import HOOKS
from mmengine.runner import Runner
from torch import nn
from torch.optim import Optimizer
from torch.utils.hooks import RemovableHandle

from sparsevit.engine.checkpoint import load_weights
from sparsevit.methods import Method, methods_in
from sparsevit.report.reporter import Task
from sparsevit.sparsity.random import RandomSparsity

STATE = "sparsity"
"""Where a checkpoint has what methods keep: ``{name of the method: its state}``."""


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
        self._random: RandomSparsity | None = None

    def before_train(self, runner: Runner) -> None:
        if self.seed is None:
            # without a seed of its own every process draws one, and they would not agree
            self.seed = int(runner.seed or 0)
        self._random = RandomSparsity(runner.model, self.seed, dist.get_rank(), shared=self.shared)

    def before_train_iter(self, runner: Runner, batch_idx: int, data_batch: Any = None) -> None:
        assert self._random is not None
        self._random.step = runner.iter
        self._random()

    def before_val(self, runner: Runner) -> None:
        self._dense()

    def after_train(self, runner: Runner) -> None:
        self._dense()

    def _dense(self) -> None:
        if self._random is not None:
            self._random.dense()


class MethodsHook(Hook):
    """Lets the methods of the trained model take part in its training.

    Losses that they add are parts of the forward's result, and so reach the log, the scaling of
    mixed precision and the gradients that processes share. The optimiser itself says when it took a
    step: neither between the batches of an accumulated gradient, nor where one overflowed.

    Args:
        seed: for what methods draw.
        from_weights: whether the training starts from weights that were trained before.
    """

    # after RandomSparsityHook: a method finds the iteration's configuration set
    priority = "HIGH"

    def __init__(self, seed: int, from_weights: bool = True) -> None:
        self.seed = seed
        self.from_weights = from_weights
        self.methods: list[Method] = []
        self._saved: Mapping[str, Any] = {}
        self._removable: list[RemovableHandle] = []

    def after_load_checkpoint(self, runner: Runner, checkpoint: dict[str, Any]) -> None:
        if runner._resume:
            self._saved = checkpoint.get(STATE, {})

    def before_train(self, runner: Runner) -> None:
        self.methods = methods_in(runner.model)
        for method in self.methods:
            method.from_weights = self.from_weights
            method.before_training(runner.max_iters, self.seed)
            if method.name in self._saved:
                method.load_state_dict(self._saved[method.name])
        self._saved = {}
        if not self.methods:
            return
        model = getattr(runner.model, "module", runner.model)
        self._removable = [model.register_forward_hook(self._add_losses)]
        for optimizer in _optimizers(runner.optim_wrapper):
            self._removable.append(optimizer.register_step_post_hook(self._after_step(runner)))

    def before_train_iter(self, runner: Runner, batch_idx: int, data_batch: Any = None) -> None:
        for method in self.methods:
            method.before_step(runner.iter)

    def before_save_checkpoint(self, runner: Runner, checkpoint: dict[str, Any]) -> None:
        state = {method.name: method.state_dict() for method in self.methods}
        if any(state.values()):
            checkpoint[STATE] = {name: kept for name, kept in state.items() if kept}

    def after_train(self, runner: Runner) -> None:
        for removable in self._removable:
            removable.remove()
        self._removable = []

    def _add_losses(self, model: nn.Module, inputs: Any, losses: Any) -> Any:
        if not (model.training and isinstance(losses, dict)):
            return losses
        more = {
            f"loss_{method.name}_{name}": loss
            for method in self.methods
            for name, loss in method.extra_loss().items()
        }
        return {**losses, **more} if more else losses

    def _after_step(self, runner: Runner) -> Callable[..., None]:
        def after(optimizer: Optimizer, args: Any, kwargs: Any) -> None:
            # a fused optimiser is called where gradients overflowed too, and then does nothing
            overflowed = getattr(optimizer, "found_inf", None)
            if overflowed is not None and bool(overflowed):
                return
            for method in self.methods:
                method.after_optimizer_step(runner.iter, optimizer)

        return after


def _optimizers(wrapper: OptimWrapper | OptimWrapperDict) -> Iterator[Optimizer]:
    wrappers = wrapper.values() if isinstance(wrapper, OptimWrapperDict) else [wrapper]
    for each in wrappers:
        yield each.optimizer


class OwnCheckpointsHook(Hook):
    """Lets a run that goes on in a copy of a directory remove its own old checkpoints alone.

    mmengine keeps the paths of the best and the last in the checkpoint, to remove them later.

    Args:
        directory: of the run.
    """

    def __init__(self, directory: Path) -> None:
        self.directory = directory

    def after_load_checkpoint(self, runner: Runner, checkpoint: dict[str, Any]) -> None:
        info = (checkpoint.get("message_hub") or {}).get("runtime_info") or {}
        for key, path in info.items():
            if key.startswith(("best_ckpt", "last_ckpt")) and isinstance(path, str):
                info[key] = str(self.directory / Path(path).name)


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
