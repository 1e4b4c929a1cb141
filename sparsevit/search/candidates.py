"""The candidates of a search, in order: which they are, what came of them, which is open.

Candidate ``n`` follows from the seed, ``n`` and the candidates before it, so every worker arrives
at the same ones by itself. The study only has to hold what came of them.
"""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Callable, Hashable, Iterable, Sequence
from dataclasses import dataclass, replace
from random import Random
from typing import Any, Protocol

from optuna.trial import FrozenTrial

from sparsevit.search.results import Stopped
from sparsevit.search.samplers import Predict
from sparsevit.search.seen import Seen
from sparsevit.search.trial import (
    CONFIGURATION,
    ITERATION,
    LATENCY_MS,
    Trial,
    is_counted,
    read_trial,
)
from sparsevit.sparsity import Configuration, Space


class Draws(Protocol):
    """What a sampler is here; see :class:`sparsevit.search.samplers.SpaceSampler`."""

    def rng(self, number: int) -> Random: ...

    def describe(self) -> dict[str, Any]: ...

    def draw(self, rng: Random, before: Sequence[Seen]) -> Configuration | None: ...


def by_ratios(configuration: Configuration) -> Hashable:
    """Tells configurations by their ratios."""
    return configuration


@dataclass(frozen=True)
class Alike:
    """Which configurations come to the same; each gives keys that are equal for those.

    Attributes:
        network: to the same network, in score and in latency.
        timing: to the same latency.
    """

    network: Callable[[Configuration], Hashable] = by_ratios
    timing: Callable[[Configuration], Hashable] = by_ratios


@dataclass(frozen=True)
class Limits:
    """When a search ends.

    Attributes:
        trials: so many different configurations in the interval were scored.
        candidates: so many were drawn.
        distinct: so many different networks there are.
    """

    trials: int
    candidates: int
    distinct: int


@dataclass
class Slot:
    """One candidate.

    Attributes:
        iteration: which one, from 0.
        configuration: what was drawn.
        first: the candidate that first drew the same network; its own number where it is new.
        latency_ms: as judged; None while it is not known.
        trial: its trial in the study: finished, or running with a living worker; else None.
    """

    iteration: int
    configuration: Configuration
    first: int
    latency_ms: float | None = None
    trial: FrozenTrial | None = None

    @property
    def is_duplicate(self) -> bool:
        return self.first != self.iteration

    @property
    def finished(self) -> bool:
        return self.trial is not None and is_counted(self.trial)


class Candidates:
    """All candidates so far, and the one to work on next.

    Args:
        space: what is searched.
        sampler: draws them.
        interval: of the latency, in milliseconds.
        limits: when to end.
        predict: judges latencies; they are measured where None.
        alike: which configurations are the same network: the first has the result of all.

    Attributes:
        slots: the candidates.
        running: on how many workers are at work.
        finished: how many came to an end.
        settled: how many different ones of the interval among them.
    """

    def __init__(
        self,
        space: Space,
        sampler: Draws,
        interval: tuple[float, float],
        limits: Limits,
        predict: Predict | None = None,
        alike: Alike | None = None,
    ) -> None:
        self._space = space
        self._sampler = sampler
        self._interval = interval
        self._limits = limits
        self._predict = predict
        self._alike = alike or Alike()
        self.slots: list[Slot] = []
        self.running = self.finished = self.settled = 0
        self._seen: list[Seen] = []
        self._first: dict[Hashable, int] = {}
        self._drawn: set[Configuration] = set()
        self._again: dict[int, list[int]] = defaultdict(list)
        self._recorded: dict[int, FrozenTrial] = {}
        self._measured: dict[Hashable, float] = {}
        self._partial: dict[Configuration, dict[int, float]] = defaultdict(dict)
        self._over: set[int] = set()
        self._open: dict[int, None] = {}
        self._in_interval: dict[int, bool | None] = {}
        self._fresh: list[Trial] = []

    # --- what the study knows ----------------------------------------------------------------

    def update(self, trials: Iterable[FrozenTrial]) -> None:
        """Takes note of a study's trials. Those that run must have living workers."""
        running: dict[int, FrozenTrial] = {}
        for trial in trials:
            iteration = trial.user_attrs.get(ITERATION)
            if trial.number in self._over or iteration is None:
                continue
            self._learn(trial)
            if trial.state.is_finished():
                self._over.add(trial.number)
                if is_counted(trial):
                    self._recorded.setdefault(iteration, trial)
                continue
            running.setdefault(iteration, trial)
        self.running = len(running)
        for iteration in [*self._open]:
            self._place(iteration, running)
        self._follow(running)

    def note_latency(self, configuration: Configuration, latency_ms: float) -> None:
        """Takes note of a latency that was measured."""
        self._measured.setdefault(self._alike.timing(configuration), latency_ms)

    def latency_of(self, configuration: Configuration) -> float | None:
        """Milliseconds as measured, None where it was not."""
        return self._measured.get(self._alike.timing(configuration))

    def partial(self, configuration: Configuration, step: int) -> float | None:
        """A score on some of the images, None where it is not known."""
        return self._partial[configuration].get(step)

    def note_partial(self, configuration: Configuration, step: int, value: float) -> None:
        """Takes note of a score on some of the images."""
        self._partial[configuration][step] = value

    def _learn(self, trial: FrozenTrial) -> None:
        """What holds for a configuration, whatever becomes of the trial."""
        ratios = trial.user_attrs.get(CONFIGURATION)
        if ratios is None:
            return
        configuration = Configuration(ratios)
        if LATENCY_MS in trial.user_attrs:
            self.note_latency(configuration, trial.user_attrs[LATENCY_MS])
        for step, value in trial.intermediate_values.items():
            self.note_partial(configuration, step, value)

    def _follow(self, running: dict[int, FrozenTrial]) -> None:
        """Adds the candidates that others have come to."""
        reached = max([*self._recorded, *running], default=-1)
        while len(self.slots) <= reached:
            number = len(self.slots)
            trial = self._recorded.get(number) or running.get(number)
            configuration = self._draw() if trial is None else _configuration(trial)
            if configuration is None:
                return
            self._add(configuration)
            self._place(number, running)

    def _add(self, configuration: Configuration) -> Slot:
        number = len(self.slots)
        first = self._first.setdefault(self._alike.network(configuration), number)
        self._drawn.add(configuration)
        slot = Slot(number, configuration, first)
        self.slots.append(slot)
        self._seen.append(Seen(configuration))
        self._open[number] = None
        if slot.is_duplicate:
            self._again[first].append(number)
        self._judge(slot)
        return slot

    def _place(self, number: int, running: dict[int, FrozenTrial]) -> None:
        slot = self.slots[number]
        slot.trial = self._recorded.get(number) or running.get(number)
        if slot.trial is not None and slot.finished:
            del self._open[number]
            trial = read_trial(slot.trial)
            self._fresh.append(trial)
            self.finished += 1
            self.settled += trial.feasible and not slot.is_duplicate
        self._judge(slot)

    def _judge(self, slot: Slot) -> None:
        if slot.is_duplicate:
            known = self._seen[slot.first]
            self._seen[slot.iteration] = replace(known, configuration=slot.configuration)
            return
        trial = None if slot.trial is None else read_trial(slot.trial)
        slot.latency_ms = self._latency(slot, trial)
        feasible = self._is_feasible(slot.latency_ms)
        if trial is not None and slot.finished:
            feasible = trial.feasible
        self._in_interval[slot.iteration] = feasible
        known = replace(self._seen[slot.iteration], latency_ms=slot.latency_ms, feasible=feasible)
        if trial is not None and slot.finished:
            known = replace(known, score=trial.score, share=trial.share)
        for number in (slot.iteration, *self._again[slot.iteration]):
            self._seen[number] = replace(known, configuration=self._seen[number].configuration)

    def _latency(self, slot: Slot, trial: Trial | None) -> float | None:
        if trial is not None and slot.finished:
            return trial.latency_ms
        if self._predict is None:
            return self.latency_of(slot.configuration)
        return slot.latency_ms or self._predict(slot.configuration)

    def _is_feasible(self, latency_ms: float | None) -> bool | None:
        if latency_ms is None:
            return None
        low, high = self._interval
        return low <= latency_ms <= high

    # --- what to do --------------------------------------------------------------------------

    def next(self) -> Slot | None:
        """A candidate that nobody works on and that can be settled now.

        None where there is none: either :meth:`stopped` says why no more come, or others work on
        what has to be known first.
        """
        for number in self._open:
            if self._can_be_settled(self.slots[number]):
                return self.slots[number]
        while self._may_draw():
            configuration = self._draw()
            if configuration is None:
                return None
            slot = self._add(configuration)
            if self._can_be_settled(slot):
                return slot
        return None

    def _can_be_settled(self, slot: Slot) -> bool:
        if slot.trial is not None:
            return False
        return not slot.is_duplicate or self.slots[slot.first].finished

    def _draw(self) -> Configuration | None:
        return self._sampler.draw(self._sampler.rng(len(self.slots)), self._seen)

    def _may_draw(self) -> bool:
        """Whether one more candidate is drawn, however those come out that are not known yet."""
        may_be_feasible = sum(known is not False for known in self._in_interval.values())
        return (
            may_be_feasible < self._limits.trials
            and len(self.slots) < self._limits.candidates
            and len(self._first) < self._limits.distinct
        )

    def stopped(self) -> Stopped | None:
        """Why the search has ended; None while it has not."""
        if self._open:
            return None
        if self.feasible >= self._limits.trials:
            return "trials"
        if len(self.slots) >= self._limits.candidates:
            return "candidates"
        if len(self._first) >= self._limits.distinct:
            return "exhausted"
        return None

    # --- what came of it ---------------------------------------------------------------------

    def take_fresh(self) -> list[Trial]:
        """The candidates that were finished since this was called last."""
        fresh, self._fresh = self._fresh, []
        return fresh

    def trials(self) -> list[Trial]:
        """The finished candidates, in order."""
        return [read_trial(s.trial) for s in self.slots if s.trial is not None and s.finished]

    @property
    def feasible(self) -> int:
        """Different networks that lie in the interval."""
        return sum(known is True for known in self._in_interval.values())

    @property
    def judged(self) -> int:
        """Different networks whose latency is known."""
        return sum(known is not None for known in self._in_interval.values())

    @property
    def distinct(self) -> int:
        """How many different configurations were drawn."""
        return len(self._drawn)

    @property
    def same_network(self) -> int:
        """How many of them are the same network as one before."""
        return len(self._drawn) - len(self._first)

    def first_of(self, slot: Slot) -> Slot:
        """The candidate that first drew the same network."""
        return self.slots[slot.first]

    def before_batch(self, slot: Slot, batch: int) -> list[Slot] | None:
        """The different candidates of the interval in the batches before the slot's own.

        None where it is not known which these are.

        Args:
            batch: how many make one, counted from the first.
        """
        numbers = []
        for number, known in self._in_interval.items():
            if number >= slot.iteration:
                break
            if known is None:
                return None
            if known:
                numbers.append(number)
        complete = len(numbers) // batch * batch
        return [self.slots[number] for number in numbers[:complete]]


def _configuration(trial: FrozenTrial) -> Configuration:
    return Configuration(trial.user_attrs[CONFIGURATION])
