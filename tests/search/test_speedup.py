"""Intervals by how many times as fast as the dense model a configuration is."""

import json
from dataclasses import asdict

import pytest
from optuna.storages import InMemoryStorage

from sparsevit.errors import UserError
from sparsevit.search.loop import with_dense
from sparsevit.search.options import (
    SearchOptions,
    canonical_budget,
    file_name,
    parse_speedup,
)


@pytest.mark.parametrize(
    ("text", "speedup"),
    [("1.8", (1.8, 1.98)), ("1.8x", (1.8, 1.98)), ("1.6:2.0", (1.6, 2.0)), ("1X:3x", (1.0, 3.0))],
)
def test_a_speedup_is_one_number_or_two(text, speedup):
    assert parse_speedup(text) == speedup


@pytest.mark.parametrize("text", ["", "x", "0.9", "2:1", "nan", "1:inf", "1:2:3", "1.8:", "-2"])
def test_what_is_no_speedup_is_refused(text):
    with pytest.raises(UserError, match="is not a speedup"):
        parse_speedup(text)


@pytest.mark.parametrize("speedup", [0.5, (2.0, 1.0), (0.0, 3.0), float("inf")])
def test_options_refuse_what_is_no_speedup(speedup):
    with pytest.raises(UserError, match="is not a speedup"):
        SearchOptions(speedups=(speedup,))


def test_speedups_are_milliseconds_once_the_dense_model_was_timed():
    asked = SearchOptions(budgets=((37, 42),), speedups=(1.8, (1.6, 2.0)))
    assert asked.intervals == ((37, 42),)
    known = with_dense(asked, lambda: 36.0, InMemoryStorage())
    assert known.searched == ((37, 42), (36 / 1.98, 20.0), (18.0, 22.5))
    assert [known.name_of(each) for each in known.searched] == ["37:42", "1.8x:1.98x", "1.6x:2x"]
    assert asked.studies == known.studies == ("max42_min37", "speedup1.8_1.98", "speedup1.6_2")
    assert [known.study_name(each) for each in known.searched] == [*known.studies]


def test_another_process_reads_the_options_as_they_are():
    options = SearchOptions(speedups=(1.8, (1.6, 2.0)), dense_ms=36.0)
    read = SearchOptions(**json.loads(json.dumps(asdict(options))))
    assert (read.searched, read.studies) == (options.searched, options.studies)


def test_a_record_without_speedups_has_no_word_of_them():
    assert "speedups" not in SearchOptions(min_ms=1, max_ms=2).to_dict()
    record = SearchOptions(speedups=(1.5,), dense_ms=10.0).to_dict()
    assert record == SearchOptions(speedups=(1.5,)).to_dict()
    assert record["speedups"] == [[1.5, 1.65]]


@pytest.mark.parametrize(
    ("text", "canonical", "file"),
    [
        ("37:42", "37:42", "max42_min37"),
        ("1.8x", "1.8x:1.98x", "speedup1.8_1.98"),
        ("1.60X:2.0x", "1.6x:2x", "speedup1.6_2"),
    ],
)
def test_one_interval_has_one_name_however_it_is_written(text, canonical, file):
    assert canonical_budget(text) == canonical
    assert canonical_budget(canonical) == canonical
    assert file_name(canonical) == file


def test_a_search_by_speedup_finds_what_one_by_milliseconds_finds(run_search, landscape):
    dense_ms = landscape.DENSE_MS
    speedup = (dense_ms / landscape.MAX_MS, dense_ms / landscape.MIN_MS)
    by_speedup = run_search(min_ms=None, max_ms=None, speedups=(speedup,))
    assert by_speedup.trials == run_search().trials
    assert by_speedup.min_ms == pytest.approx(landscape.MIN_MS)


def test_a_search_that_is_gone_on_with_keeps_its_interval(run_search, landscape):
    storage = InMemoryStorage()
    asked = {"min_ms": None, "max_ms": None, "speedups": (1.5,), "storage": storage}
    before = run_search(**asked, trials=4)

    def slower(configuration):
        return 2 * landscape.latency(configuration)

    after = run_search(**asked, trials=4, measure=slower)
    assert (after.min_ms, after.max_ms, after.dense_ms) == (
        before.min_ms,
        before.max_ms,
        before.dense_ms,
    )
    assert after.trials == before.trials


def test_a_speedup_out_of_reach_is_told_what_is_in_reach(run_search):
    with pytest.raises(UserError) as refused:
        run_search(min_ms=None, max_ms=None, speedups=(50.0,))
    assert "--speedup" in refused.value.remedy
