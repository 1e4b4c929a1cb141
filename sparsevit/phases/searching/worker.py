"""What every worker of a search is told, and the model that it works with."""

from __future__ import annotations

import json
from collections.abc import Callable
from contextlib import AbstractContextManager, nullcontext
from dataclasses import asdict, dataclass, replace
from pathlib import Path
from typing import Any

import torch
from mmengine.config import Config

from sparsevit.engine.config import load_config
from sparsevit.engine.runner import build_detector
from sparsevit.latency.predictor import LatencyPredictor
from sparsevit.latency.quiet import SharedMachine
from sparsevit.latency.subject import Subject, Timing
from sparsevit.phases.budgets import Budget
from sparsevit.phases.device import device_name
from sparsevit.phases.scoring import Scorer
from sparsevit.report.reporter import SILENT, Reporter
from sparsevit.search import Halving, Progress, SearchResult, make_sampler, search
from sparsevit.search.front import Reference
from sparsevit.search.halving import SHARES
from sparsevit.search.loop import default_study_name
from sparsevit.sparsity import Configuration
from sparsevit.sparsity.handle import SparsityHandle
from sparsevit.workspace import Workspace

FRONT: Budget = (0.0, float("inf"))
"""The interval of a search for the whole front."""


@dataclass(frozen=True)
class SearchPlan:
    """A search as all of its workers know it: plain data.

    Attributes:
        config, checkpoint, checkpoint_sha256: files of the model, and the digest of its weights.
        workspace, directory: of the search, and of this run of it.
        scope, backend, img_size, batch_size, precision, latency_seconds: how latency is timed.
        device: of this worker.
        metric, eval_images: how a candidate is scored.
        sampler, options, seed: how candidates are drawn.
        trials, max_candidates: when to stop.
        halving: whether weak candidates are stopped.
        pareto: whether latency is a second objective.
        storage, study: where the studies are, and the name of the study if one was given.
        several: whether there are several budgets, so that a given name is not enough.
        sensitivity: (ratios, score) pairs that are known beforehand.
        lag: of samplers that would else wait for every score before.
        timing_threads, working_threads: CPU threads for either, where workers share the machine.
    """

    config: str
    checkpoint: str
    checkpoint_sha256: str
    workspace: str
    directory: str
    scope: str
    backend: str
    img_size: tuple[int, int]
    batch_size: int
    precision: str
    latency_seconds: float
    device: str
    metric: str
    eval_images: int | None
    sampler: str
    options: dict[str, Any]
    seed: int
    trials: int
    max_candidates: int
    halving: bool
    pareto: bool
    storage: str
    study: str | None
    several: bool
    sensitivity: tuple[tuple[dict[str, float], float], ...] = ()
    lag: int = 0
    timing_threads: int | None = None
    working_threads: int | None = None

    @property
    def timing(self) -> dict[str, Any]:
        """How latency is timed, for the record."""
        return {
            "scope": self.scope,
            "backend": self.backend,
            "img_size": list(self.img_size),
            "batch_size": self.batch_size,
            "precision": self.precision,
            "device": self.device,
        }

    def known_scores(self) -> dict[Configuration, float] | None:
        """Scores that are known beforehand, None where there are none."""
        known = {Configuration(ratios): score for ratios, score in self.sensitivity}
        return known or None

    def study_name(self, budget: Budget) -> str:
        """The name of an interval's study."""
        usual = "front" if budget == FRONT else default_study_name(*budget)
        if self.study is None:
            return usual
        return f"{self.study}-{usual}" if self.several else self.study

    def write(self, path: Path, budgets: tuple[Budget, ...]) -> None:
        """Writes it, and the intervals to search, for another process."""
        document = {"plan": asdict(self), "budgets": budgets}
        path.write_text(json.dumps(document), encoding="utf-8")

    @classmethod
    def read(cls, path: Path) -> tuple[SearchPlan, tuple[Budget, ...]]:
        """What :meth:`write` wrote."""
        document = json.loads(path.read_text(encoding="utf-8"))
        plan = cls(**document["plan"])
        budgets = tuple((float(low), float(high)) for low, high in document["budgets"])
        return replace(plan, img_size=(plan.img_size[0], plan.img_size[1])), budgets


class SearchBench:
    """A model that is timed and scored at one configuration after the other.

    Args:
        plan: what to do.
        cfg: the config; that of the plan where None.
        reporter: is told how long a backend takes to get ready.
    """

    def __init__(
        self, plan: SearchPlan, cfg: Config | None = None, reporter: Reporter = SILENT
    ) -> None:
        self.plan = plan
        self.device = torch.device(plan.device)
        cfg = load_config(plan.config) if cfg is None else cfg
        self.model, _ = build_detector(cfg, Path(plan.checkpoint), self.device)
        self.handle = SparsityHandle(self.model)
        self.space = self.handle.space
        self.subject = Subject(
            self.model,
            scope=plan.scope,
            batch_size=plan.batch_size,
            img_size=plan.img_size,
            device=self.device,
            precision=plan.precision,
        )
        self.predictor: LatencyPredictor | None = None
        self._latencies: dict[Configuration, float] = {}
        # refuses options that do not fit, before any work is put into it
        make_sampler(plan.sampler, self.space, plan.seed, **plan.options)
        self.scorer = Scorer(
            Workspace(plan.workspace, readonly=True),
            cfg,
            self.model,
            checkpoint=plan.checkpoint_sha256,
            metric=plan.metric,
            images=plan.eval_images,
        )
        if plan.halving:
            self.scorer.in_parts(SHARES, plan.seed)

        def tell(seconds: float) -> None:
            reporter.note(f"{plan.backend}: ready for a first configuration after {seconds:.1f} s")

        self._timing = Timing(self.subject, self.handle, plan.backend, plan.latency_seconds, tell)
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

    def latency_ms(self, configuration: Configuration) -> float:
        """Latency as candidates are judged by it."""
        if self.predictor is None:
            return self.time_ms(configuration)
        return self.predictor.predict(configuration)

    def search(
        self,
        budget: Budget,
        *,
        log: Path | None = None,
        on_event: Callable[[Progress], None] | None = None,
        confirm_best: bool = True,
    ) -> SearchResult:
        """Works on the study of an interval until it is done.

        Raises:
            UserError: as :func:`sparsevit.search.search`.
        """
        plan = self.plan
        predict = None if self.predictor is None else self.predictor.predict
        result = search(
            self.space,
            self.time_ms,
            self.scorer,
            min_ms=budget[0],
            max_ms=budget[1],
            trials=plan.trials,
            max_candidates=plan.max_candidates,
            predict=predict,
            halving=Halving(self.scorer.on_share) if plan.halving else None,
            front=plan.pareto,
            sampler=make_sampler(
                plan.sampler,
                self.space,
                plan.seed,
                interval=None if plan.pareto else budget,
                predict=predict,
                sensitivity=plan.known_scores(),
                lag=plan.lag,
                **plan.options,
            ),
            storage=plan.storage,
            study_name=plan.study_name(budget),
            identity={
                **plan.timing,
                "device": self.device.type,
                "device_name": device_name(self.device),
                "metric": plan.metric,
                "eval_images": plan.eval_images,
                "checkpoint": plan.checkpoint_sha256,
            },
            latencies=self._latencies,
            log_path=log,
            on_event=on_event,
            confirm_best=confirm_best,
        )
        self._note_latencies(result)
        return result

    def _note_latencies(self, result: SearchResult) -> None:
        """What a search measured, the next need not."""
        found = {self.space.dense(): result.dense_ms, self.space.max(): result.fastest_ms}
        for trial in result.trials:
            if trial.configuration is not None and trial.latency_ms is not None:
                found.setdefault(trial.configuration, trial.latency_ms)
        if self.predictor is None:
            self._latencies = {**found, **self._latencies}

    def references(self, budget: Budget, dense_ms: float) -> list[Reference]:
        """The dense model, and the uniform configuration nearest to the middle of the interval."""
        dense = self.space.dense()
        found = [Reference("dense", dense, dense_ms, self.scorer(dense))]
        shared = set.intersection(*(set(knob.choices) for knob in self.space.knobs)) - {0.0}
        if not shared:
            return found
        middle = (budget[0] + min(budget[1], dense_ms)) / 2
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
