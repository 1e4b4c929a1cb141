"""What is timed: a model's backbone or all of it, on images, at any configuration."""

from __future__ import annotations

import time
from collections.abc import Callable
from dataclasses import replace
from typing import Any

import torch
from torch import nn

from sparsevit.latency.backends import prepare
from sparsevit.latency.backends.base import autocast
from sparsevit.latency.clock import Clock
from sparsevit.latency.execution import Execution
from sparsevit.latency.memory import keep_freed_memory
from sparsevit.sparsity import Configuration
from sparsevit.sparsity.handle import SparsityHandle
from sparsevit.tasks import Task, task_of_model


class Workload:
    """A model and its input, ready to be called again and again.

    Args:
        model: of a task, in evaluation mode; it is moved to the execution's device.
        execution: how it is executed.
        task: that the model is for; found from the model where None.
        batch: what a data loader gives a whole model; random pixels of the execution's size where
            None. How long a second stage takes depends on how much there is to be found.
        weights: SHA-256 of the weights, where it is known.

    Attributes:
        handle: of the model.

    Raises:
        UserError: it cannot be executed so.
    """

    def __init__(
        self,
        model: nn.Module,
        execution: Execution,
        *,
        task: Task | None = None,
        batch: dict[str, Any] | None = None,
        weights: str | None = None,
    ) -> None:
        self.execution = execution.require()
        if execution.device.type == "cpu":
            keep_freed_memory()
        self.task = task_of_model(model) if task is None else task
        self.task.require_scope(execution.scope)
        self.model = model.to(execution.device)
        self.model.eval()
        self.handle = SparsityHandle(model, required=False)
        self.weights = weights
        size = (execution.batch_size, execution.img_size)
        if execution.whole:
            self._batch = self.task.random_batch(*size) if batch is None else batch
        else:
            self._images = self.task.random_images(*size).to(execution.device)

    @property
    def timed_part(self) -> nn.Module:
        """The backbone, or the whole model."""
        return self.model if self.execution.whole else self.task.backbone_of(self.model)

    def __call__(self) -> Any:
        """Eager PyTorch's outputs in the execution's precision, at the sparsity as set now."""
        how = self.execution
        with torch.inference_mode(), autocast(how.precision, how.device):
            if how.whole:
                model: Any = self.model
                return model.test_step(self._batch)
            return self.timed_part(self._images)

    def at(self, configuration: Configuration) -> Callable[[], Any]:
        """A call at a configuration, by the execution's backend, whatever is set in between.

        Raises:
            UserError: the backend does not take this model.
        """
        if self.execution.backend != "eager":
            self.handle.set(configuration)
            return self._prepared()

        def call() -> Any:
            self.handle.set(configuration)
            return self()

        return call

    def of_one_image(self) -> Workload:
        """The backbone alone on one image, eagerly, in fp32."""
        how = replace(
            self.execution, scope="backbone", backend="eager", precision="fp32", batch_size=1
        )
        return Workload(self.model, how, task=self.task)

    def _prepared(self) -> Callable[[], Any]:
        how = self.execution
        if how.whole:
            model: Any = self.model
            images = model.data_preprocessor(self._batch, False)["inputs"]
            run = self.task.prepare(how.backend, model, images, how.precision, how.device)
            step = self.task.as_step(model, run)
            return lambda: step(self._batch)
        images = self._images
        maps = prepare(how.backend, self.timed_part, images, how.precision, how.device)
        return lambda: maps(images)


class Stopwatch:
    """Milliseconds of a workload at one configuration after the other, each timed beside dense.

    What a backend is given of a configuration is dropped when it was timed; of dense it is kept.

    Args:
        workload: what is timed.
        seconds: to spend on timing each, beside preparing it.
        on_prepared: is told, once, how many seconds the first was prepared in; not by ``eager``.
        dense_ms, warn: see :class:`sparsevit.latency.clock.Clock`.

    Attributes:
        clock: that times.
    """

    def __init__(
        self,
        workload: Workload,
        seconds: float,
        on_prepared: Callable[[float], None] | None = None,
        *,
        dense_ms: float | None = None,
        warn: Callable[[str], Any] | None = None,
    ) -> None:
        self._workload = workload
        self._dense = workload.handle.space.dense()
        device = workload.execution.device
        self.clock = Clock(
            lambda: self._prepared(self._dense),
            device,
            seconds,
            dense_ms=dense_ms,
            warn=warn,
        )
        self._on_prepared = None if workload.execution.backend == "eager" else on_prepared

    def __call__(self, configuration: Configuration) -> float:
        if configuration == self._dense:
            return self.clock.dense_ms
        return self.clock(self._prepared(configuration))

    def _prepared(self, configuration: Configuration) -> Callable[[], Any]:
        started = time.perf_counter()
        call = self._workload.at(configuration)
        if self._on_prepared is not None:
            call()
            self._on_prepared(time.perf_counter() - started)
            self._on_prepared = None
        return call
