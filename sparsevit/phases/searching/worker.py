"""One worker of a search: a model that is timed and scored at one configuration after the other.

As a program, ``python -m sparsevit.phases.searching.worker PLAN.json``, it helps the process that
started it, which tells it the storage on standard input, and ends when the studies are done or that
process ends.
"""

from __future__ import annotations

import json
import os
import signal
import sys
import threading
from collections.abc import Callable
from contextlib import AbstractContextManager, nullcontext
from pathlib import Path
from typing import Any

import torch
from mmengine.config import Config

from sparsevit.engine.config import load_config
from sparsevit.engine.evaluation import given_size
from sparsevit.engine.runner import build_model
from sparsevit.latency.predictor import LatencyPredictor
from sparsevit.latency.shared_machine import SharedMachine
from sparsevit.latency.workload import Stopwatch, Workload
from sparsevit.methods import networks_of
from sparsevit.phases.device import device_name
from sparsevit.phases.latency_source import settled_predictor
from sparsevit.phases.scoring import Scorer
from sparsevit.phases.searching.plan import SearchPlan
from sparsevit.report.reporter import SILENT, Reporter
from sparsevit.search.candidates import Alike
from sparsevit.search.front import Reference
from sparsevit.search.halving import SHARES, Halving
from sparsevit.search.loop import search
from sparsevit.search.options import Budget
from sparsevit.search.results import Progress, SearchResult
from sparsevit.search.samplers import make_sampler
from sparsevit.sparsity import Configuration
from sparsevit.workspace import Workspace


class SearchWorker:
    """A model that is timed and scored at one configuration after the other.

    Args:
        plan: what to do.
        cfg: the config; that of the plan where None.
        reporter: is told how long a backend takes to get ready.
    """

    def __init__(
        self, plan: SearchPlan, cfg: Config | None = None, reporter: Reporter = SILENT
    ) -> None:
        self.plan, options = plan, plan.options
        cfg = load_config(plan.config) if cfg is None else cfg
        self.model, _ = build_model(cfg, Path(plan.checkpoint), plan.execution.device)
        self.workload = Workload(self.model, plan.execution, weights=plan.checkpoint_sha256)
        self.space = self.workload.handle.space
        self.predictor: LatencyPredictor | None = None
        self._latencies: dict[Configuration, float] = {}
        # refuses options that do not fit, before any work is put into it
        make_sampler(options.sampler_name, self.space, options.seed, **options.sampler_options)
        self.scorer = Scorer(
            Workspace(plan.workspace, readonly=True),
            cfg,
            self.model,
            checkpoint=plan.checkpoint_sha256,
            metric=plan.metric,
            images=options.eval_images,
        )
        if options.halving:
            self.scorer.in_parts(SHARES, options.seed)

        def tell(seconds: float) -> None:
            backend = plan.execution.backend
            reporter.note(f"{backend}: ready for a first configuration after {seconds:.1f} s")

        self._timing = Stopwatch(
            self.workload, options.latency_seconds, tell, warn=lambda text: reporter.note(text)
        )
        self._alone: Callable[[], AbstractContextManager[None]] = nullcontext

    def share_machine(self) -> None:
        """Lets other workers on the same cores be quiet while this one times, and the reverse."""
        if self.plan.timing_threads is None or self.plan.working_threads is None:
            return
        machine = SharedMachine(
            Path(self.plan.directory), self.plan.timing_threads, self.plan.working_threads
        )
        torch.set_num_threads(self.plan.working_threads)
        self.scorer.during_batch(machine.step)
        self._alone = machine.timing

    def time_ms(self, configuration: Configuration) -> float:
        """Latency as measured now."""
        with self._alone():
            return self._timing(configuration)

    @property
    def busy(self) -> str | None:
        """What timings say of a machine that does other work; see :class:`Machine`."""
        return self._timing.clock.machine.busy

    def latency_ms(self, configuration: Configuration) -> float:
        """Latency as candidates are judged by it."""
        if self.predictor is None:
            return self.time_ms(configuration)
        return self.predictor.predict(configuration)

    def search(
        self,
        interval: Budget,
        *,
        log: Path | None = None,
        on_event: Callable[[Progress], None] | None = None,
        confirm_best: bool = True,
    ) -> SearchResult:
        """Works on the study of an interval until it is done.

        Raises:
            UserError: as :func:`sparsevit.search.loop.search`.
        """
        plan, options = self.plan, self.plan.options
        result = search(
            self.space,
            self.time_ms,
            self.scorer,
            options,
            interval=interval,
            predict=None if self.predictor is None else self.predictor.predict,
            halving=Halving(self.scorer.on_share) if options.halving else None,
            sensitivity=plan.known_scores(),
            identity=self.identity(),
            latencies=self._latencies,
            alike=self._alike(),
            log_path=log,
            on_event=on_event,
            confirm_best=confirm_best,
        )
        self._note_latencies(result)
        return result

    def _alike(self) -> Alike:
        """Which configurations are one network, on the scored images and in a timed call."""
        how = self.plan.execution
        size = how.img_size
        if how.whole:
            size = given_size(self.workload.task, self.model, size)
        scored, timed = self.scorer.network, networks_of(self.model, [size])
        return Alike(lambda each: (scored(each), timed(each)), timed)

    def identity(self) -> dict[str, Any]:
        """What tells this search from others of the same interval, space and sampler."""
        return {
            **self.plan.execution.to_dict(),
            "device": self.plan.execution.device.type,
            "device_name": device_name(self.plan.execution.device),
            "metric": self.plan.metric,
            "eval_images": self.plan.options.eval_images,
            "checkpoint": self.plan.checkpoint_sha256,
        }

    def _note_latencies(self, result: SearchResult) -> None:
        """What a search measured, the next need not."""
        found = {self.space.dense(): result.dense_ms, self.space.max(): result.fastest_ms}
        for trial in result.trials:
            if trial.configuration is not None and trial.latency_ms is not None:
                found.setdefault(trial.configuration, trial.latency_ms)
        if self.predictor is None:
            self._latencies = {**found, **self._latencies}

    def references(self, interval: Budget, dense_ms: float) -> list[Reference]:
        """The dense model, and the uniform configuration nearest to the middle of the interval."""
        dense = self.space.dense()
        found = [Reference("dense", dense, dense_ms, self.scorer(dense))]
        shared = set.intersection(*(set(knob.choices) for knob in self.space.knobs)) - {0.0}
        if not shared:
            return found
        middle = (interval[0] + min(interval[1], dense_ms)) / 2
        latencies: dict[float, float] = {}
        choices = sorted(shared)
        low, high = 0, len(choices) - 1
        while low <= high:
            at = (low + high) // 2
            latencies[choices[at]] = self.latency_ms(self.space.uniform(choices[at]))
            if latencies[choices[at]] > middle:
                low = at + 1
            else:
                high = at - 1
        ratio = min(latencies, key=lambda r: abs(latencies[r] - middle))
        uniform = self.space.uniform(ratio)
        score = self.scorer(uniform)
        return [*found, Reference(f"uniform {ratio:g}", uniform, latencies[ratio], score)]


def main(file: str) -> None:
    """Work on the studies of a plan until they are done."""
    # Ctrl-C reaches every process of a terminal: the one that started this one ends it
    signal.signal(signal.SIGINT, signal.SIG_IGN)
    storage = json.loads(sys.stdin.buffer.readline())
    threading.Thread(target=_end_with_parent, daemon=True).start()
    plan = SearchPlan.read(Path(file), storage)
    worker = SearchWorker(plan)
    worker.predictor = settled_predictor(Path(plan.directory), _no_decision)
    worker.share_machine()
    for interval in plan.options.searched:
        worker.search(interval, confirm_best=False)


def _end_with_parent() -> None:
    sys.stdin.buffer.read()
    os._exit(0)


def _no_decision() -> None:
    raise RuntimeError("the first worker decides how latency is judged before others start")


if __name__ == "__main__":
    main(sys.argv[1])
