"""The search: what is asked of the model, when it ends, what it keeps."""

import re
from collections import Counter
from dataclasses import replace

import optuna
import pytest
from optuna.storages import InMemoryStorage
from optuna.trial import TrialState

from sparsevit.errors import UserError
from sparsevit.search.loop import search
from sparsevit.search.options import SearchOptions
from sparsevit.search.study import open_study
from sparsevit.sparsity import Space


class Counted:
    """Counts calls by configuration, and can break off at the n-th."""

    def __init__(self, function, break_at=None, error=KeyboardInterrupt):
        self.function, self.break_at, self.error = function, break_at, error
        self.calls = Counter()

    def __call__(self, configuration):
        self.calls[configuration] += 1
        if sum(self.calls.values()) == self.break_at:
            raise self.error
        return self.function(configuration)


def test_the_best_is_the_best_of_all_that_lie_in_the_interval(run_search, landscape):
    result = run_search()
    feasible = [
        trial
        for trial in result.trials
        if landscape.MIN_MS <= landscape.latency(trial.configuration) <= landscape.MAX_MS
    ]
    assert result.best.score == max(landscape.score(t.configuration) for t in feasible)
    assert result.best.latency_ms == landscape.latency(result.best.configuration)
    assert result.best.configuration in landscape.SPACE
    assert result.feasible == len({trial.configuration for trial in feasible})
    assert result.stopped == "trials"
    assert result.feasible == landscape.TRIALS


def test_only_candidates_in_the_interval_are_scored(run_search, landscape):
    score = Counted(landscape.score)
    run_search(score=score)
    latencies = [landscape.latency(configuration) for configuration in score.calls]
    assert all(landscape.MIN_MS <= latency <= landscape.MAX_MS for latency in latencies)


def test_everything_is_measured_and_scored_once_and_the_winner_measured_again(
    run_search, landscape
):
    measure, score = Counted(landscape.latency), Counted(landscape.score)
    result = run_search(measure=measure, score=score)
    assert result.candidates > result.distinct
    winner = result.best.configuration
    assert {c: n for c, n in measure.calls.items() if n > 1} == {winner: 2}
    assert set(score.calls.values()) == {1}
    assert result.best.confirmed_ms == result.best.latency_ms


def test_a_duplicate_has_the_result_of_the_first(run_search):
    result = run_search()
    first = {}
    for trial in result.trials:
        known = first.setdefault(trial.configuration, trial)
        assert (trial.score, trial.latency_ms) == (known.score, known.latency_ms)
        assert (trial.state == "duplicate") == (trial is not known)


def test_with_a_predictor_only_the_bounds_and_each_new_best_are_measured(run_search, landscape):
    measure = Counted(lambda configuration: landscape.latency(configuration) + 0.01)
    result = run_search(measure=measure, predict=landscape.latency)
    winner = result.best.configuration
    bounds = {landscape.SPACE.min(), landscape.SPACE.max()}
    bests, highest = set(), -float("inf")
    for trial in result.trials:
        if trial.state == "scored" and trial.score > highest:
            bests.add(trial.configuration)
            highest = trial.score
    assert set(measure.calls) == bests | bounds
    assert set(measure.calls.values()) == {1}
    assert result.best.confirmed_ms == landscape.latency(winner) + 0.01
    assert result.best.latency_ms == result.best.predicted_ms == landscape.latency(winner)
    plain = run_search()
    assert [(t.configuration, t.score, t.state) for t in result.trials] == [
        (t.configuration, t.score, t.state) for t in plain.trials
    ]


def test_a_predicted_winner_that_misses_the_interval_when_measured_is_none(run_search, landscape):
    plain = run_search(predict=landscape.latency)
    lucky = plain.best.configuration

    def measure(configuration):
        return 99.0 if configuration == lucky else landscape.latency(configuration)

    result = run_search(measure=measure, predict=landscape.latency)
    assert [trial.configuration for trial in result.unconfirmed] == [lucky]
    assert result.best.configuration != lucky
    assert landscape.MIN_MS <= result.best.confirmed_ms <= landscape.MAX_MS


def test_a_study_of_predicted_latencies_is_not_gone_on_with_by_measuring(run_search, landscape):
    storage = InMemoryStorage()
    run_search(storage=storage, predict=landscape.latency, trials=2)
    with pytest.raises(UserError, match='latency was "predicted", now "measured"'):
        run_search(storage=storage)


@pytest.mark.parametrize(("low", "high"), [(1.0, 5.0), (70.0, 80.0)])
def test_an_interval_out_of_reach_is_refused_at_once_with_both_figures(run_search, low, high):
    def score(_):
        raise AssertionError("nothing is to be scored")

    with pytest.raises(UserError, match=r"sparsest takes 20 ms.*dense model 60 ms") as caught:
        run_search(min_ms=low, max_ms=high, score=score)
    assert "20 to 60 ms" in caught.value.remedy


def test_an_interval_that_could_not_be_met_can_be_mended_in_the_same_study(run_search, tmp_path):
    storage = tmp_path / "study.db"
    with pytest.raises(UserError, match="sparsest takes"):
        run_search(storage=storage, study="search", min_ms=1, max_ms=5)
    assert run_search(storage=storage, study="search", trials=3).best is not None


@pytest.mark.parametrize(
    "changes",
    [
        {"min_ms": 42, "max_ms": 37},
        {"min_ms": -1},
        {"max_ms": float("inf")},
        {"max_ms": float("nan")},
        {"trials": 0},
        {"max_candidates": 0},
        {"sampler": "best"},
    ],
)
def test_arguments_that_make_no_sense_are_refused_before_anything_is_measured(run_search, changes):
    def measure(_):
        raise AssertionError("nothing is to be measured")

    with pytest.raises(UserError) as caught:
        run_search(measure=measure, **changes)
    assert caught.value.remedy


def test_it_ends_when_the_space_is_exhausted(run_search):
    space = Space.staged((2, 6), choices=(0, 0.4))
    result = run_search(
        space=space,
        measure=lambda c: 40 - c.mean(),
        score=lambda c: c.mean(),
        sampler="random",
    )
    assert result.stopped == "exhausted"
    assert result.distinct == result.feasible == space.size() == 8
    assert result.best.configuration == space.max()


def test_it_ends_after_the_allowed_candidates(run_search):
    result = run_search(max_candidates=12)
    assert (result.stopped, result.candidates) == ("candidates", 12)


def test_nothing_found_is_a_result_without_a_best(run_search):
    result = run_search(min_ms=38.0001, max_ms=38.0002, max_candidates=20)
    assert result.best is None
    assert result.feasible == 0


def test_a_winner_that_misses_the_interval_when_measured_again_is_none(run_search, landscape):
    plain = run_search()
    scored = [trial for trial in plain.trials if trial.state == "scored"]
    ranked = sorted(scored, key=lambda t: (-t.score, t.latency_ms))
    lucky = {trial.configuration for trial in ranked[:2]}
    seen = Counter()

    def measure(configuration):
        seen[configuration] += 1
        again = configuration in lucky and seen[configuration] == 2
        return 99.0 if again else landscape.latency(configuration)

    result = run_search(measure=measure)
    assert [trial.configuration for trial in result.unconfirmed] == [
        trial.configuration for trial in ranked[:2]
    ]
    assert all(trial.confirmed_ms == 99 for trial in result.unconfirmed)
    assert result.best == replace(ranked[2], confirmed_ms=ranked[2].latency_ms)


def test_a_finished_search_measures_nothing_again_and_not_its_winner(run_search, landscape):
    storage = InMemoryStorage()
    first = run_search(storage=storage)
    measure, score = Counted(landscape.latency), Counted(landscape.score)
    second = run_search(storage=storage, measure=measure, score=score)
    assert not measure.calls
    assert not score.calls
    assert second.best == first.best
    assert second.trials == first.trials
    assert second.resumed_from == first.candidates


def test_more_trials_go_on_where_the_finished_search_stood(run_search):
    storage = InMemoryStorage()
    run_search(storage=storage, trials=10, confirm_best=False)
    went_on = run_search(storage=storage, trials=25)
    assert went_on.trials == run_search(trials=25).trials


@pytest.mark.parametrize("part", ["measure", "score"])
@pytest.mark.parametrize("error", [KeyboardInterrupt, RuntimeError("out of memory")])
def test_a_search_that_breaks_off_goes_on_as_if_it_had_not(
    run_search, landscape, tmp_path, part, error
):
    storage, log = InMemoryStorage(), tmp_path / "log.txt"
    functions = {"measure": landscape.latency, "score": landscape.score}
    measure, score = Counted(functions["measure"]), Counted(functions["score"])
    breaking = {"measure": measure, "score": score}
    breaking[part] = Counted(functions[part], break_at=9, error=error)
    with pytest.raises((KeyboardInterrupt, RuntimeError)):
        run_search(storage=storage, log_path=log, **breaking)

    study = optuna.load_study(study_name="max42_min37", storage=storage)
    assert not study.get_trials(states=(TrialState.RUNNING,))
    before = set(breaking["score"].calls)

    after = {"measure": Counted(functions["measure"]), "score": Counted(functions["score"])}
    result = run_search(storage=storage, log_path=log, **after)
    whole = run_search()
    assert [comparable(t) for t in result.trials] == [comparable(t) for t in whole.trials]
    assert comparable(result.best) == comparable(whole.best)
    assert result.resumed_from > 0
    twice = before & set(after["score"].calls)
    assert len(twice) <= (part == "score")
    measured = Counter(breaking["measure"].calls) + Counter(after["measure"].calls)
    repeated = {c for c, count in measured.items() if count > 1}
    assert len(repeated - {result.best.configuration}) <= (part == "measure")


def comparable(trial):
    """A trial without its Optuna number, which those that were cut short use up."""
    return replace(trial, number=0)


@pytest.mark.parametrize(
    ("changes", "named"),
    [
        ({"identity": {"checkpoint": "b"}}, 'checkpoint was "a", now "b"'),
        ({"identity": {}}, 'checkpoint was "a", now not given'),
        ({"max_ms": 43}, "interval_ms was"),
        ({"sampler": "random"}, 'sampler.name was "evolution", now "random"'),
        ({"space": Space.staged((2, 2, 6, 2), prefix="neck")}, "space was"),
    ],
)
def test_a_study_of_other_inputs_is_not_gone_on_with(run_search, changes, named):
    same = {
        "storage": InMemoryStorage(),
        "study": "search",
        "trials": 2,
        "identity": {"checkpoint": "a"},
    }
    first = run_search(**same)
    with pytest.raises(UserError, match="made with other inputs") as caught:
        run_search(**{**same, **changes})
    assert named in caught.value.problem
    assert run_search(**same).best == first.best


def test_a_score_that_is_no_number_says_so(run_search):
    with pytest.raises(UserError, match=r"score of .* is nan"):
        run_search(score=lambda _: float("nan"))


def test_a_file_that_is_no_study_is_a_users_mistake_and_not_harmed(run_search, tmp_path):
    path = tmp_path / "study.db"
    path.write_text("something of the user's\n" * 100)
    with pytest.raises(UserError, match="cannot be opened"):
        run_search(storage=path)
    assert path.read_text().startswith("something of the user's")


def test_any_sampler_of_optuna_can_be_plugged_in(run_search, landscape):
    sampler = optuna.samplers.TPESampler(seed=0, n_startup_trials=5)
    result = run_search(sampler=sampler, trials=10, max_candidates=200)
    assert result.best.configuration in landscape.SPACE
    assert all(trial.configuration in landscape.SPACE for trial in result.trials)


def test_the_study_reads_in_optuna_as_it_is(run_search, tmp_path):
    result = run_search(storage=tmp_path / "study.db", trials=5)
    study = optuna.load_study(study_name="max42_min37", storage=f"sqlite:///{tmp_path}/study.db")
    assert study.direction == optuna.study.StudyDirection.MAXIMIZE
    assert study.best_value == result.best.score
    assert study.trials[result.best.number].params == result.best.configuration
    infeasible = study.get_trials(states=(TrialState.PRUNED,))
    assert infeasible
    assert all("latency_ms" in trial.user_attrs for trial in infeasible)


def test_optunas_own_lines_stay_off_the_terminal_and_its_verbosity_is_left(run_search, capfd):
    optuna.logging.set_verbosity(optuna.logging.INFO)
    run_search(trials=3)
    assert optuna.logging.get_verbosity() == optuna.logging.INFO
    assert capfd.readouterr().err == ""


def test_progress_is_told_throughout(run_search):
    events = []
    result = run_search(on_event=events.append)
    assert [stage for stage, _ in groups(event.stage for event in events)] == [
        "bounds",
        "search",
        "confirm",
        "done",
    ]
    last = events[-1]
    assert (last.scored, last.target) == (16, 16)
    assert last.candidates == result.candidates
    assert last.feasible_share == pytest.approx(result.feasible / result.distinct)
    assert last.best.configuration == result.best.configuration
    assert events[0].feasible_share is None
    assert events[0].eta_seconds is None
    scored = [event.scored for event in events]
    assert scored == sorted(scored)
    assert all(event.eta_seconds >= 0 for event in events if event.scored)


def groups(values):
    """Runs of equal values: (value, length)."""
    found = []
    for value in values:
        if found and found[-1][0] == value:
            found[-1][1] += 1
        else:
            found.append([value, 1])
    return found


def test_studies_of_two_intervals_share_a_storage(run_search, tmp_path):
    storage = tmp_path / "study.db"
    run_search(storage=storage, trials=2)
    run_search(storage=storage, trials=2, max_ms=40)
    assert set(optuna.get_all_study_names(f"sqlite:///{storage}")) == {"max42_min37", "max40_min37"}


def test_a_study_can_have_several_objectives():
    study = open_study(None, "front", directions=("maximize", "minimize"))
    assert len(study.directions) == 2


LOG_ENTRY = re.compile(
    r"(?P<iteration>\d+) (?P<score>-?\d+\.\d+) \{'latency': (?P<latency>\d+\.\d+)\}\n"
    r"(?P<knobs>(?:backbone\.stages\.\d(?:_\d)? 0(?:\.[1-8])? )+)\n"
)


def test_the_log_has_the_papers_form(run_search, landscape, tmp_path):
    path = tmp_path / "search_max42_min37.txt"
    result = run_search(log_path=path)
    text = path.read_text()
    entries = list(LOG_ENTRY.finditer(text))
    assert "".join(entry.group() for entry in entries) == text
    scores = [float(entry["score"]) for entry in entries]
    assert scores == sorted(set(scores))
    assert scores[-1] == result.best.score
    for entry in entries:
        trial = result.trials[int(entry["iteration"])]
        words = entry["knobs"].split()
        assert trial.configuration == dict(zip(words[::2], map(float, words[1::2]), strict=True))
        assert float(entry["latency"]) == trial.latency_ms
        assert float(entry["score"]) == trial.score


def test_search_takes_a_sampler_by_name_and_a_seed(landscape):
    results = [
        search(
            landscape.SPACE,
            landscape.latency,
            landscape.score,
            SearchOptions(min_ms=37, max_ms=42, trials=3, seed=seed),
        )
        for seed in (0, 0, 1)
    ]
    assert results[0].trials == results[1].trials
    assert results[0].trials != results[2].trials
