"""Every phase in one go, and a table that compares what they made."""

from __future__ import annotations

import os
import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from mmengine.config import Config
from torch import nn

from sparsevit.engine.config import load_config, sparsify_config
from sparsevit.engine.evaluation import Evaluation
from sparsevit.engine.runner import build_model
from sparsevit.latency.execution import Execution
from sparsevit.latency.paired import measure_paired
from sparsevit.latency.timer import Latency
from sparsevit.latency.workload import Workload
from sparsevit.phases.adapt import adapt
from sparsevit.phases.device import pick_device
from sparsevit.phases.finetune import finetune
from sparsevit.phases.inputs import DEMO_CONFIG, PathLike, image_size
from sparsevit.phases.picture import picture_of_predictions, picture_of_sparsity
from sparsevit.phases.pretrain import pretrain
from sparsevit.phases.search import search
from sparsevit.report.reporter import SILENT, Reporter
from sparsevit.search.results import Progress
from sparsevit.sparsity import Configuration, read_configuration
from sparsevit.sparsity.handle import SparsityHandle
from sparsevit.tasks import TASKS, Task, task_of
from sparsevit.workspace import Run, Workspace

# The interval to search in, between the sparsest (0) and the dense latency (1) of this machine.
SHARES = (0.25, 0.45)
# if short: nearly every configuration lies in it, and so few are timed
SHORT_SHARES = (0.0, 0.8)
# Seconds to time the interval's ends for, and what was made; if short.
TIMING_SECONDS, SHORT_TIMING_SECONDS = (6.0, 20.0), (1.0, 1.0)
BATCH_SIZE = 4
"""Images that are timed; more where a sample has more."""
DETECTION = "detection"
CONFIGS = {
    DETECTION: DEMO_CONFIG,
    "segmentation": "sparsevit::demo/upernet_swin_shapes.py",
    "bev": "sparsevit::demo/bevdet_swin_scenes.py",
    "classification": "sparsevit::demo/classifier_swin_shapes.py",
}
"""By task."""
SHORT = ("phases.adapt.train_cfg.max_iters=4", "phases.finetune.train_cfg.max_iters=2")
SHORT_DATA = ("embedded_dataset.train=16", "embedded_dataset.val=4")
SHORT_PRETRAIN = ("train_cfg.max_iters=4",)
_FLAT = ("whole", "scores")


@dataclass(frozen=True)
class DemoRow:
    """One model of the demo.

    Attributes:
        name: what it is.
        sparsity: its ratios.
        backbone_ms: mean latency of a batch, in milliseconds.
        backbone_speedup: against dense.
        whole: the same two of the whole model: ``detector_ms`` and ``detector_speedup``, or those
            of a ``segmentor``, a ``bev_detector`` or a ``classifier``.
        scores: on the validation set: ``bbox_ap`` and ``segm_ap``, or ``NDS`` and ``mAP``, 0 to 1;
            or ``mIoU``, or ``top1`` and ``top5``, in percent.
    """

    name: str
    sparsity: dict[str, float]
    backbone_ms: float
    backbone_speedup: float
    whole: dict[str, float] = field(metadata={"flat": True})
    scores: dict[str, float] = field(metadata={"flat": True})

    def figures(self) -> dict[str, Any]:
        """All of it, by name."""
        plain = {name: value for name, value in vars(self).items() if name not in _FLAT}
        return {**plain, **self.whole, **self.scores}


@dataclass(frozen=True)
class DemoResult:
    """What the demo came to.

    Attributes:
        task: what the models are for.
        rows: dense, then the same configuration without adaptation, adapted and finetuned.
        workspace: where everything is.
        batch_size, img_size: what was timed.
        interval_ms: that was searched in.
        picture: the kept windows on an image of the validation set.
        predictions: what the first and the last model find on it, as a picture.
        seconds: of this session.
    """

    task: str
    rows: list[DemoRow]
    workspace: Path
    batch_size: int
    img_size: tuple[int, int]
    interval_ms: tuple[float, float]
    picture: Path | None
    predictions: Path | None
    seconds: float


def demo(
    config: PathLike | None = None,
    *,
    task: str = DETECTION,
    workspace: PathLike | None = None,
    short: bool = False,
    trials: int | None = None,
    device: str | None = None,
    seed: int = 0,
    force: bool = False,
    reporter: Reporter = SILENT,
    on_event: Callable[[Progress], None] | None = None,
) -> DemoResult:
    """Train, adapt, search and finetune, and compare: on the embedded dataset, or by a config.

    Killed and called again, it goes on with the phase it was in.

    Args:
        config: path or name, of any task; that of :data:`CONFIGS` where None.
        task: one of :data:`CONFIGS`; the config's own where that is given.
        workspace: directory of the record; ``work_dirs`` where None.
        short: a few iterations a phase: to see that it works, not how well.
        trials: configurations to score; 20, or 3 if short, where None.
        device: where to time, search and evaluate; CUDA if there is any where None.
        seed: of everything.
        force: do it all again.
        reporter: is told what happens.
        on_event: is told the progress of the search.

    Raises:
        UserError: it is done already, or a phase cannot run.
    """
    started = time.perf_counter()
    ws = Workspace.open(workspace)
    inputs: dict[str, Any] = {"short": short, "seed": seed, "trials": trials}
    given = CONFIGS[task] if config is None else os.fspath(config)
    if config is not None:
        inputs["config"] = given
        task = task_of(load_config(given)).name
    elif task != DETECTION:
        inputs["task"] = task
    with ws.run("demo", inputs, force=force) as run:
        overrides = (*SHORT, *(SHORT_DATA if config is None else ())) if short else ()
        again = force and not run.resumed
        tour = _Tour(ws, run, TASKS[task], overrides, short, seed, again, device, reporter)
        reporter.heading(f"1/5 pretrain: the dense {TASKS[task].whole}")
        extra = SHORT_PRETRAIN if short else ()
        tour.once("pretrain", pretrain, extra=extra, config=given)
        reporter.heading("2/5 adapt: random ratios at every iteration")
        tour.once("adapt", adapt)
        cfg = tour.config()
        size = image_size(cfg)
        interval = tour.interval(cfg, size)
        reporter.heading(
            f"3/5 search: the best ratios between {interval[0]:.1f} and "
            f"{interval[1]:.1f} ms per batch"
        )
        tour.once(
            "search",
            search,
            speedups=(tour.speedups(interval),),
            img_size=size,
            batch_size=tour.batch_size,
            population=4 if short else 12,
            parents=2 if short else 4,
            trials=trials or (3 if short else 20),
            max_candidates=30 if short else 400,
            latency_seconds=0.1 if short else 0.5,
            device=device,
            on_event=on_event,
        )
        reporter.heading("4/5 finetune: at the best ratios")
        tour.once("finetune", finetune)
        reporter.heading("5/5 compare")
        rows, pictures = tour.compare(cfg, size)
        run.update(metrics={"rows": [row.figures() for row in rows]}, outputs=pictures)
    return DemoResult(
        task=task,
        rows=rows,
        workspace=ws.path,
        batch_size=tour.batch_size,
        img_size=size,
        interval_ms=interval,
        picture=pictures.get("picture"),
        predictions=pictures.get("predictions"),
        seconds=time.perf_counter() - started,
    )


class _Tour:
    """The demo's way through the phases of one workspace."""

    def __init__(
        self,
        workspace: Workspace,
        run: Run,
        task: Task,
        overrides: Sequence[str],
        short: bool,
        seed: int,
        force: bool,
        device: str | None,
        reporter: Reporter,
    ) -> None:
        self.workspace = workspace
        self.run = run
        self.batch_size = max(1, BATCH_SIZE // task.views)
        self.overrides = overrides
        self.seconds = SHORT_TIMING_SECONDS if short else TIMING_SECONDS
        self.shares = SHORT_SHARES if short else SHARES
        self.seed = seed
        self.force = force
        self.device = pick_device(device)
        self.reporter = reporter

    def once(
        self, phase: str, function: Callable[..., Any], extra: Sequence[str] = (), **how: Any
    ) -> None:
        """Run a phase, unless this demo has run it before it was interrupted."""
        if self.run.record.metrics.get(phase) == "done":
            self.reporter.note(f"{phase} is already done")
            return
        begun = self.run.record.metrics.get(phase) == "begun"
        self.run.update(metrics={phase: "begun"})
        function(
            workspace=self.workspace.path,
            overrides=(*self.overrides, *extra),
            seed=self.seed,
            # what this demo itself began goes on; anything older is begun anew
            force=self.force and not begun,
            reporter=self.reporter,
            **how,
        )
        self.run.update(metrics={phase: "done"})

    def config(self) -> Config:
        """The config that the search used."""
        path = self.workspace.output("adapt", "config")
        assert path is not None
        return sparsify_config(load_config(path))

    def interval(self, cfg: Config, size: tuple[int, int]) -> tuple[float, float]:
        """The latency interval to search in, fixed once for this demo."""
        metrics = self.run.record.metrics
        if {"interval_ms", "dense_ms"} <= set(metrics):
            low, high = metrics["interval_ms"]
            return low, high
        model, _ = build_model(cfg)
        workload = Workload(model, self._execution("backbone", size))
        space = workload.handle.space
        times = measure_paired(
            {"dense": workload.at(space.dense()), "sparsest": workload.at(space.max())},
            self.device,
            seconds=self.seconds[0],
        )
        dense_ms, sparsest_ms = times["dense"].mean_ms, times["sparsest"].mean_ms
        room = dense_ms - sparsest_ms
        low, high = (round(sparsest_ms + share * room, 2) for share in self.shares)
        interval = low, high
        self.run.update(metrics={"interval_ms": list(interval), "dense_ms": dense_ms})
        return interval

    def speedups(self, interval: tuple[float, float]) -> tuple[float, float]:
        """The interval as times as fast as dense, whose latency may differ when it is searched."""
        dense_ms = float(self.run.record.metrics["dense_ms"])
        return round(dense_ms / interval[1], 2), round(dense_ms / interval[0], 2)

    def compare(self, cfg: Config, size: tuple[int, int]) -> tuple[list[DemoRow], dict[str, Path]]:
        """Time and score the models of the demo, and draw what the last one keeps and finds."""
        weights = {
            phase: self.workspace.output(phase, "checkpoint")
            for phase in ("pretrain", "adapt", "finetune")
        }
        evaluation = Evaluation(cfg)
        task = task_of(cfg)
        dense_model, _ = build_model(cfg, weights["pretrain"], self.device)
        model, _ = build_model(cfg, weights["finetune"], self.device)
        space = SparsityHandle(model).space
        best_file = self.workspace.best_configuration()
        assert best_file is not None
        found, dense = read_configuration(best_file, space), space.dense()
        settings = {"dense": (dense_model, dense), "sparse": (model, found)}
        times = self._times(task, settings, evaluation, size)
        rows = []
        for name, phase, configuration in (
            ("dense", "pretrain", dense),
            ("adapted, run dense", "adapt", dense),
            ("searched, never adapted", "pretrain", found),
            ("searched", "adapt", found),
            ("searched and finetuned", "finetune", found),
        ):
            model, _ = build_model(cfg, weights[phase], self.device)
            SparsityHandle(model).set(configuration)
            metrics = evaluation(model, self.reporter, f"score: {name}")
            kind = "dense" if configuration is dense else "sparse"
            rows.append(_row(task, name, configuration, kind, times, metrics))
        folder, shown = self.run.directory, {"dense": dense_model, rows[-1].name: model}
        SparsityHandle(dense_model).set(dense)
        pictures = {
            "picture": picture_of_sparsity(cfg, model, folder / "kept_windows.png"),
            "predictions": picture_of_predictions(cfg, shown, folder / "predictions.png"),
        }
        return rows, {name: path for name, path in pictures.items() if path is not None}

    def _times(
        self,
        task: Task,
        settings: dict[str, tuple[nn.Module, Configuration]],
        evaluation: Evaluation,
        size: tuple[int, int],
    ) -> dict[str, Latency]:
        dataset = evaluation.loader.dataset
        samples = [dataset[i] for i in range(min(self.batch_size, len(dataset)))]
        calls = {}
        for kind, (model, configuration) in settings.items():
            for scope in ("backbone", task.whole):
                execution = self._execution(scope, size)
                workload = Workload(model, execution, batch=task.batch_from(samples))
                calls[f"{kind} {scope}"] = workload.at(configuration)
        self.reporter.note("timing dense and sparse in alternation")
        return measure_paired(calls, self.device, seconds=self.seconds[1])

    def _execution(self, scope: str, size: tuple[int, int]) -> Execution:
        return Execution(scope, img_size=size, batch_size=self.batch_size, device=self.device)


def _row(
    task: Task,
    name: str,
    configuration: Configuration,
    kind: str,
    times: dict[str, Latency],
    metrics: dict[str, float],
) -> DemoRow:
    backbone, whole = (times[f"{kind} {scope}"].mean_ms for scope in ("backbone", task.whole))
    return DemoRow(
        name=name,
        sparsity=configuration.to_dict(),
        backbone_ms=backbone,
        backbone_speedup=times["dense backbone"].mean_ms / backbone,
        whole={
            f"{task.whole_key}_ms": whole,
            f"{task.whole_key}_speedup": times[f"dense {task.whole}"].mean_ms / whole,
        },
        scores={task.figure(name): metrics[name] for name in task.headlines if name in metrics},
    )
