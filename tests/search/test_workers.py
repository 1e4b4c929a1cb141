"""Several workers on one study: what they come to is what one comes to."""

import random
import signal
import subprocess
import sys
import threading
import time
from collections import Counter
from dataclasses import replace

import optuna
import postgres
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from optuna.storages import InMemoryStorage
from optuna.trial import TrialState

from sparsevit.search.claims import claim, release_the_dead
from sparsevit.search.halving import Halving
from sparsevit.search.samplers import EvolutionSampler, RandomSampler, distributions
from sparsevit.search.study import open_study
from sparsevit.search.workers import WORKER, Watch, Worker, machine
from sparsevit.sparsity import Configuration

WORKERS = 3


def comparable(trial):
    """A trial without its Optuna number, which depends on who was quicker."""
    return replace(trial, number=0)


class Crash(BaseException):
    """What ends a worker of the tests."""


class Flaky:
    """A function that counts its calls, takes a while, and breaks off now and then."""

    def __init__(self, function, rng, crashes=0.0):
        self.function, self.rng, self.crashes = function, rng, crashes
        self.given = Counter()
        self.running = Counter()
        self.at_once = 0
        self.guard = threading.Lock()

    def __call__(self, configuration, *more):
        with self.guard:
            self.running[configuration, more] += 1
            self.at_once = max(self.at_once, self.running[configuration, more])
            crash, seconds = self.rng.random() < self.crashes, self.rng.random() * 0.003
        time.sleep(seconds)
        with self.guard:
            self.running[configuration, more] -= 1
            if not crash:
                self.given[configuration, more] += 1
        if crash:
            raise Crash
        return self.function(configuration, *more)


def in_threads(run_search, number, **arguments):
    """The same search in several threads; one that crashes is started again."""
    results, problems = [], []

    def work():
        while True:
            try:
                results.append(run_search(**arguments))
            except Crash:
                continue
            except BaseException as error:
                problems.append(error)
            return

    threads = [threading.Thread(target=work) for _ in range(number)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join(timeout=200)
        assert not thread.is_alive()
    assert not problems, problems
    return results


@settings(
    max_examples=12,
    suppress_health_check=[HealthCheck.function_scoped_fixture, HealthCheck.too_slow],
)
@given(
    seed=st.integers(0, 1000),
    sampler=st.sampled_from([EvolutionSampler, RandomSampler]),
    predicted=st.booleans(),
    crashes=st.sampled_from([0.0, 0.1]),
)
def test_several_workers_score_what_one_scores_and_nothing_twice(
    run_search, landscape, seed, sampler, predicted, crashes
):
    options = {"population": 4, "parents": 2} if sampler is EvolutionSampler else {}
    rng = random.Random(seed)
    measure, score = Flaky(landscape.latency, rng, crashes), Flaky(landscape.score, rng, crashes)
    same = {
        "sampler": sampler(landscape.SPACE, seed, **options),
        "predict": landscape.latency if predicted else None,
        "trials": 12,
    }
    results = in_threads(
        run_search, WORKERS, storage=InMemoryStorage(), measure=measure, score=score, **same
    )
    alone = run_search(**same)
    for result in results:
        assert [comparable(t) for t in result.trials if t.state != "duplicate"] == [
            comparable(t) for t in alone.trials if t.state != "duplicate"
        ]
        assert len(result.trials) == len(alone.trials)
        assert comparable(result.best) == comparable(alone.best)
    assert set(score.given.values()) == {1}
    assert score.at_once == 1
    assert set(score.given) == {(t.configuration, ()) for t in alone.trials if t.state == "scored"}


@settings(
    max_examples=6,
    suppress_health_check=[HealthCheck.function_scoped_fixture, HealthCheck.too_slow],
)
@given(seed=st.integers(0, 1000), crashes=st.sampled_from([0.0, 0.1]))
def test_with_halving_several_workers_stop_whom_one_stops(run_search, landscape, seed, crashes):
    def on_some(configuration, share):
        noise = random.Random(f"{configuration}{share}").uniform(-1, 1) * (1 - share)
        return landscape.score(configuration) + noise

    same = {"sampler": landscape.evolution(seed), "trials": 20}
    part = Flaky(on_some, random.Random(seed), crashes)
    results = in_threads(
        run_search,
        WORKERS,
        storage=InMemoryStorage(),
        halving=Halving(part, batch=4),
        **same,
    )
    alone = run_search(halving=Halving(on_some, batch=4), **same)
    for result in results:
        assert [comparable(t) for t in result.trials if t.state != "duplicate"] == [
            comparable(t) for t in alone.trials if t.state != "duplicate"
        ]
    assert part.at_once == 1
    assert set(part.given.values()) == {1}


def test_halving_stops_someone(run_search, landscape):
    halving = Halving(lambda configuration, share: landscape.score(configuration), batch=4)
    found = run_search(halving=halving, sampler=landscape.evolution(0), trials=20)
    assert any(trial.state == "stopped" for trial in found.trials)


# --- claims ---------------------------------------------------------------------------------------


@pytest.fixture
def study():
    return open_study(None, "search")


def take(study, worker, landscape, iteration=0):
    space = landscape.SPACE
    return claim(
        study,
        worker,
        Watch(),
        iteration=iteration,
        configuration=space.dense(),
        distributions=distributions(space),
    )


def test_one_of_two_workers_has_a_candidate(study, landscape):
    with Worker(study) as one, Worker(study) as other:
        assert take(study, one, landscape) is not None
        assert take(study, other, landscape) is None
        assert take(study, other, landscape, iteration=1) is not None


def test_many_workers_at_once_share_each_candidate_out_to_one(study, landscape):
    taken, barrier = Counter(), threading.Barrier(8)

    def work():
        with Worker(study) as worker:
            for iteration in range(20):
                barrier.wait()
                if take(study, worker, landscape, iteration) is not None:
                    taken[iteration] += 1
                barrier.wait()

    threads = [threading.Thread(target=work) for _ in range(8)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert taken == dict.fromkeys(range(20), 1)


def test_a_candidate_whose_worker_has_ended_is_free_again(study, landscape):
    with Worker(study) as one:
        take(study, one, landscape)
    with Worker(study) as other:
        assert take(study, other, landscape) is not None


def running(study, signature):
    trial = optuna.create_trial(
        state=TrialState.RUNNING, system_attrs={WORKER: signature} if signature else {}
    )
    study._storage.create_new_trial(study._study_id, template_trial=trial)
    return study.trials[-1]


def test_a_process_that_has_the_number_of_one_that_died_is_not_taken_for_it(study):
    mine = Worker(study).signature
    other = subprocess.Popen([sys.executable, "-c", "input()"], stdin=subprocess.PIPE)
    try:
        reused = {**mine, "pid": other.pid, "started": "1", "machine": machine()}
        assert Watch().is_gone(running(study, reused))
    finally:
        other.communicate(b"\n")


def test_a_worker_of_another_machine_is_gone_when_its_count_stands_still(study, monkeypatch):
    from sparsevit.search import workers

    now = [0.0]
    monkeypatch.setattr(workers.time, "monotonic", lambda: now[0])
    elsewhere = {**Worker(study).signature, "machine": "another"}
    trial = running(study, elsewhere)
    watch = Watch(grace_seconds=20)
    assert not watch.is_gone(trial)
    for beat in range(30):
        now[0] += 2
        study._storage.set_trial_system_attr(trial._trial_id, "beat", beat)
        trial = study.trials[-1]
        assert not watch.is_gone(trial)
    now[0] += 1000  # the observer slept: that says nothing of the worker
    assert not watch.is_gone(trial)
    for _ in range(10):
        now[0] += 2
        gone = watch.is_gone(trial)
    assert gone


def test_a_worker_counts_while_it_holds_a_trial(study, landscape):
    with Worker(study, beat_seconds=0.01) as worker:
        taken = take(study, worker, landscape)
        give_up = time.monotonic() + 60
        while study.trials[-1].system_attrs.get("beat", 0) < 3:
            assert time.monotonic() < give_up
            time.sleep(0.01)
        taken.finish(TrialState.COMPLETE, [1.0])
    assert study.trials[-1].value == 1.0


def test_what_was_given_up_for_dead_changes_nothing_when_it_comes_back(study, landscape):
    with Worker(study) as one:
        taken = take(study, one, landscape)
        study._storage.set_trial_state_values(study.trials[-1]._trial_id, TrialState.FAIL)
        taken.note("latency_ms", 1.0)
        taken.report(125, 1.0)
        taken.finish(TrialState.COMPLETE, [1.0])
    assert study.trials[-1].state == TrialState.FAIL
    release_the_dead(study, Watch())


# --- processes ------------------------------------------------------------------------------------


@pytest.fixture(params=["sqlite", "journal", "postgresql"])
def storage(request, tmp_path):
    if request.param == "sqlite":
        yield f"sqlite:///{tmp_path}/shared.db"
    elif request.param == "journal":
        yield f"journal:///{tmp_path}/shared.log"
    else:
        if postgres.missing():
            pytest.skip(postgres.missing())
        with postgres.server() as url:
            yield url


def lines(folder, what):
    """What all workers said, whole lines only."""
    texts = [path.read_text() for path in sorted(folder.glob("calls-*"))]
    said = [line for text in texts for line in text.splitlines()]
    return [line.removeprefix(what) for line in said if line.startswith(what)]


def test_processes_share_a_search_and_one_that_is_killed_loses_nothing(
    storage, run_search, landscape, tmp_path
):
    processes = [
        subprocess.Popen(
            [sys.executable, landscape.__file__, str(tmp_path), storage, str(worker)],
            stderr=subprocess.PIPE,
        )
        for worker in range(WORKERS)
    ]
    try:
        give_up = time.monotonic() + 200
        victim = None
        while victim is None:
            assert time.monotonic() < give_up
            for worker, process in enumerate(processes):
                assert process.poll() is None, process.communicate()
                path = tmp_path / f"calls-{worker}"
                said = path.read_text() if path.exists() else ""
                # in the middle of a score
                if said.count("given score") >= 1 and said.endswith("\n"):
                    last = said.splitlines()[-1]
                    victim = process if last.startswith("asked score") else victim
            time.sleep(0.002)
        victim.send_signal(signal.SIGKILL)
        for process in processes:
            _, errors = process.communicate(timeout=200)
            assert process.returncode == (-signal.SIGKILL if process is victim else 0), errors
    finally:
        for process in processes:
            process.kill()
            process.communicate()

    whole = run_search()
    result = run_search(storage=storage, study="search", measure=None, score=None)
    assert [comparable(t) for t in result.trials if t.state != "duplicate"] == [
        comparable(t) for t in whole.trials if t.state != "duplicate"
    ]
    assert comparable(result.best) == comparable(whole.best)
    given = Counter(Configuration.parse(text) for text in lines(tmp_path, "given score "))
    scored = {trial.configuration for trial in whole.trials if trial.state == "scored"}
    assert set(given) == scored
    # one whose score was given in the instant before the kill may not have been kept
    assert sum(count - 1 for count in given.values()) <= 1


@pytest.mark.parametrize(
    ("url", "shown"),
    [
        ("postgresql://me:secret@host:5432/studies", "postgresql://me:***@host:5432/studies"),
        ("postgresql://me@host/studies", "postgresql://me@host/studies"),
        ("sqlite:////a/b.db", "sqlite:////a/b.db"),
    ],
)
def test_a_password_is_not_shown(url, shown):
    from sparsevit.search.study import shown_url

    assert shown_url(url) == shown
