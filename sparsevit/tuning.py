"""Latency and search for your own model, in your own program.

What ``sparsevit calibrate`` and ``sparsevit search`` do with a config and a workspace, these do
with any model in which ``SparsityHandle`` finds knobs, any inputs and any score. They need PyTorch
and Optuna, and no OpenMMLab. Before a search the model has to be adapted: call
:class:`~sparsevit.sparsity.random.RandomSparsity` before every iteration of a training loop.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import torch
from torch import Tensor, nn

from sparsevit.latency import calibration as calibrating
from sparsevit.latency.calibration import HELD_OUT, MAX_ERROR, SECONDS, Plan, measure_plan
from sparsevit.latency.clock import Clock, believable
from sparsevit.latency.cost import gmacs
from sparsevit.latency.memory import keep_freed_memory
from sparsevit.latency.predictor import LatencyPredictor
from sparsevit.latency.relative import Share, measure_share
from sparsevit.latency.structure import structure_digest
from sparsevit.search.loop import search
from sparsevit.search.options import SearchOptions
from sparsevit.search.results import Progress, SearchResult
from sparsevit.sparsity.configuration import Configuration
from sparsevit.sparsity.handle import SparsityHandle

Inputs = Tensor | Sequence[Any] | Mapping[str, Any]
"""What a model is called with: one tensor, a sequence of arguments, or arguments by name."""


def calibrate(
    model: nn.Module,
    inputs: Inputs,
    *,
    seconds: float = SECONDS,
    held_out: int = HELD_OUT,
    max_error: float = MAX_ERROR,
    seed: int = 0,
) -> LatencyPredictor:
    """Measure how each knob changes a model's latency, to predict that of any configuration.

    It is measured in eager PyTorch, in evaluation mode, on the device of the model.

    Args:
        model: a model with parts that can be skipped.
        inputs: what it is called with.
        seconds: time to spend; the measurements that predictions need are made even if they take
            longer.
        held_out: number of random configurations to check predictions with.
        max_error: largest mean error on them at which predictions are accepted, as a fraction.
        seed: of the held-out configurations.

    Returns:
        A predictor: ``predict(configuration)`` gives milliseconds; ``calibration`` has its errors
        on the held-out configurations, and ``calibration.accepted`` says whether they are within
        ``max_error``.

    Raises:
        UserError: nothing in the model can be skipped.
    """
    with _timed(model, inputs) as (handle, call):
        device = _device(model)

        def work(configuration: Configuration) -> float:
            handle.set(configuration)
            return gmacs(call, model)

        def share(configuration: Configuration, allowed: float) -> Share:
            sparse = _at(handle, configuration, call)
            dense = _at(handle, handle.space.dense(), call)
            return believable(lambda: measure_share(sparse, dense, device, seconds=allowed))

        plan = Plan(handle.space, work, held_out, seed)
        shares = measure_plan(plan, share, seconds=seconds)
        key = _identity(model, inputs)
        return LatencyPredictor(calibrating.calibrate(plan, shares, key=key, limit=max_error))


def search_configuration(
    model: nn.Module,
    score: Callable[[nn.Module], float],
    inputs: Inputs,
    *,
    max_ms: float | None = None,
    min_ms: float = 0.0,
    speedup: float | tuple[float, float] | None = None,
    trials: int = 200,
    storage: str | Path | None = None,
    study: str | None = None,
    predictor: LatencyPredictor | None = None,
    sampler: str | None = None,
    latency_seconds: float = 2.0,
    seed: int = 0,
    on_event: Callable[[Progress], None] | None = None,
) -> SearchResult:
    """Search for the configuration with the best score whose latency lies within an interval.

    If it is killed, calling it again with the same storage continues it. Afterwards the model has
    the configuration that it had before.

    Args:
        model: a model with parts that can be skipped, adapted to skipping.
        score: called with the model set to a candidate, in evaluation mode and without gradients;
            higher is better.
        inputs: what the model is called with to time it.
        max_ms, min_ms: the interval in milliseconds, both ends included.
        speedup: in place of milliseconds: how many times as fast as the dense model, from and to;
            of one number, up to a tenth more.
        trials: stop when this many different configurations have been scored.
        storage: file or URL of an Optuna study that keeps the results; None keeps nothing.
        study: name of the study; None names it after the interval.
        predictor: from :func:`calibrate`; if None, each candidate is timed.
        sampler: how candidates are drawn, one of :data:`sparsevit.search.samplers.SAMPLERS`;
            None for the paper's evolution.
        latency_seconds: time to spend on each configuration that is timed.
        seed: seed of the draws.
        on_event: called with the progress.

    Returns:
        A result whose ``best.configuration`` can be passed to ``SparsityHandle(model).set``;
        ``best`` is None if nothing was found.

    Raises:
        UserError: nothing in the model can be skipped, the interval cannot be met on this device,
            or the study was made with a different model or other inputs.
    """
    options = SearchOptions(
        max_ms=max_ms,
        min_ms=None if max_ms is None else min_ms,
        speedups=() if speedup is None else (speedup,),
        trials=trials,
        storage=storage,
        study=study,
        sampler=sampler,
        seed=seed,
    )
    with _timed(model, inputs) as (handle, call):
        device = _device(model)

        dense = handle.space.dense()
        clock = Clock(lambda: _at(handle, dense, call), device, latency_seconds)

        def milliseconds(configuration: Configuration) -> float:
            if configuration == dense:
                return clock.dense_ms
            return clock(_at(handle, configuration, call))

        def scored(configuration: Configuration) -> float:
            handle.set(configuration)
            with torch.no_grad():
                return float(score(model))

        return search(
            handle.space,
            milliseconds,
            scored,
            options,
            predict=None if predictor is None else predictor.predict,
            identity=_identity(model, inputs),
            on_event=on_event,
        )


@contextmanager
def _timed(model: nn.Module, inputs: Inputs) -> Iterator[tuple[SparsityHandle, Callable[[], Any]]]:
    """The model's knobs and a call of it; afterwards it is set as it was before."""
    handle = SparsityHandle(model)
    before, training = handle.get(), {module: module.training for module in model.modules()}
    if _device(model).type == "cpu":
        keep_freed_memory()

    @torch.no_grad()
    def call() -> Any:
        if isinstance(inputs, Tensor):
            return model(inputs)
        return model(**inputs) if isinstance(inputs, Mapping) else model(*inputs)

    model.eval()
    try:
        yield handle, call
    finally:
        handle.set(before)
        for module, was in training.items():
            module.training = was


def _at(
    handle: SparsityHandle, configuration: Configuration, call: Callable[[], Any]
) -> Callable[[], Any]:
    def run() -> Any:
        handle.set(configuration)
        return call()

    return run


def _device(model: nn.Module) -> torch.device:
    return next(model.parameters()).device


def _identity(model: nn.Module, inputs: Inputs) -> dict[str, Any]:
    """What latencies and scores depend on, as far as it can be told."""
    named = inputs if isinstance(inputs, Mapping) else {"0": inputs}
    if not isinstance(inputs, (Mapping, Tensor)):
        named = {str(place): value for place, value in enumerate(inputs)}
    shapes = {name: list(v.shape) for name, v in named.items() if isinstance(v, Tensor)}
    return {"model": structure_digest(model), "inputs": shapes, "device": _device(model).type}
