"""A search in a process of its own, killed and started again."""

import random
import signal
import subprocess
import sys
import time
from collections import Counter
from dataclasses import replace

import optuna
import pytest
from optuna.trial import TrialState
from sqlalchemy.exc import SQLAlchemyError

from sparsevit.search.log import log_text


@pytest.fixture
def start(landscape, tmp_path):
    """Starts the slow search; whatever happens, it is ended with the test."""
    started = []

    def start():
        process = subprocess.Popen(
            [sys.executable, landscape.__file__, str(tmp_path)], stderr=subprocess.PIPE
        )
        started.append(process)
        return process

    yield start
    for process in started:
        process.kill()
        process.communicate()


def calls(folder):
    path = folder / "calls"
    # A line that the kill cut off has not been said.
    return path.read_text().splitlines() if path.exists() else []


def wait_for(process, condition):
    """Waits until it holds; gives False where the process ended before."""
    give_up = time.monotonic() + 120
    while not condition():
        assert time.monotonic() < give_up
        if process.poll() is not None:
            return False
        time.sleep(0.005)
    return True


def finished_scores(folder):
    """The configurations whose score the study holds."""
    if not (folder / "study.db").exists():
        return set()
    try:
        study = optuna.load_study(study_name="search", storage=f"sqlite:///{folder}/study.db")
    except (KeyError, SQLAlchemyError):  # killed before the study was made
        return set()
    done = study.get_trials(states=(TrialState.COMPLETE,))
    return {tuple(sorted(trial.user_attrs["configuration"].items())) for trial in done}


def asked_scores(lines):
    from sparsevit.sparsity import Configuration

    texts = [line.removeprefix("asked score ") for line in lines if line.startswith("asked score ")]
    return [tuple(sorted(Configuration.parse(text).items())) for text in texts]


def test_killed_at_random_moments_it_comes_to_the_same_trials(
    start, run_search, landscape, tmp_path
):
    rng = random.Random(0)
    kills = 0
    ended = None
    while ended != 0:
        said = len(calls(tmp_path))
        done = finished_scores(tmp_path)
        process = start()
        if kills < 8:
            if kills % 4 == 0:
                time.sleep(rng.uniform(0.3, 1.5))  # while it imports and makes the study, too
            elif wait_for(process, lambda said=said: len(calls(tmp_path)) > said):
                time.sleep(rng.uniform(0, 0.5))
            process.send_signal(signal.SIGKILL)
        ended = process.wait(timeout=60)
        # Nothing that the study held is scored by whoever comes after.
        assert not done & set(asked_scores(calls(tmp_path)[said:]))
        assert ended in (0, -signal.SIGKILL), process.stderr.read().decode()
        kills += ended != 0
    assert kills >= 4

    whole = run_search()
    result = run_search(
        storage=tmp_path / "study.db",
        study="search",
        measure=None,  # a finished search asks for nothing
        score=None,
    )
    assert [replace(trial, number=0) for trial in result.trials] == [
        replace(trial, number=0) for trial in whole.trials
    ]
    assert replace(result.best, number=0) == replace(whole.best, number=0)
    assert (tmp_path / "log.txt").read_text() == log_text(whole.trials)
    # Each configuration is asked for once, and once more for each kill that cut it off.
    again = sum(count - 1 for count in Counter(asked_scores(calls(tmp_path))).values())
    assert again <= kills


def test_an_interrupt_leaves_a_study_to_go_on_with(start, run_search, landscape, tmp_path):
    # held, so that it cannot end before the interrupt comes
    (tmp_path / "hold").touch()
    process = start()
    enough = landscape.HELD_AFTER + 1
    assert wait_for(process, lambda: len(asked_scores(calls(tmp_path))) >= enough)
    process.send_signal(signal.SIGINT)
    _, errors = process.communicate(timeout=30)
    assert process.returncode != 0
    assert b"KeyboardInterrupt" in errors
    study = optuna.load_study(study_name="search", storage=f"sqlite:///{tmp_path}/study.db")
    assert len(study.get_trials(states=(TrialState.COMPLETE,))) >= 4
    assert not study.get_trials(states=(TrialState.RUNNING,))
    result = run_search(storage=tmp_path / "study.db", study="search")
    assert [replace(trial, number=0) for trial in result.trials] == [
        replace(trial, number=0) for trial in run_search().trials
    ]
