"""The options of a search: what they refuse, and what they come to on disk."""

import inspect
import json

import optuna
import pytest

from sparsevit.cli.search import search as command
from sparsevit.errors import UserError
from sparsevit.latency.calibration import MAX_ERROR
from sparsevit.latency.execution import PAPER_BATCH
from sparsevit.search.options import FRONT, SearchOptions, parse_budget
from sparsevit.search.samplers import SAMPLERS

# What versions before SearchOptions wrote, by hand.
RECORD = {
    "interval_ms": [37.0, 42.0],
    "budgets": [[37.0, 42.0]],
    "pareto": False,
    "trials": 10000,
    "max_candidates": 10000,
    "latency": "auto",
    "max_error": 0.03,
    "sampler": "evolution",
    "seed": 0,
    "population": 100,
    "parents": 25,
    "mutation_prob": 0.1,
    "metric": "bbox_mAP",
    "eval_images": None,
    "halving": False,
    "storage": None,
    "study": None,
}


@pytest.mark.parametrize(
    ("fields", "said"),
    [
        ({}, "needs a latency interval"),
        ({"max_ms": 42}, "--max is given without --min"),
        ({"min_ms": 42, "max_ms": 37}, "from 42 to 37 ms"),
        ({"budgets": [(0, float("inf"))]}, "from 0 to inf ms"),
        ({"pareto": True, "workers": 0}, "--workers is 0"),
        ({"pareto": True, "max_candidates": 0}, "--max-candidates is 0"),
    ],
)
def test_what_cannot_be_searched_is_refused_with_a_remedy(fields, said):
    with pytest.raises(UserError, match=said) as caught:
        SearchOptions(**fields)
    assert caught.value.remedy


def test_each_interval_is_searched_once_in_the_order_given():
    options = SearchOptions(min_ms=37, max_ms=42, budgets=[(30, 35), (37, 42)], study="mine")
    assert options.intervals == options.searched == ((37, 42), (30, 35))
    names = [options.study_name(interval) for interval in options.searched]
    assert names == ["mine-max42_min37", "mine-max35_min30"]
    assert SearchOptions(budgets=[parse_budget("30:35")], study="mine").study_name((30, 35)) == (
        "mine"
    )


def test_a_front_has_one_study_and_a_sampler_of_its_own():
    options = SearchOptions(pareto=True, budgets=[(30, 35)])
    assert options.searched == (FRONT,)
    assert options.intervals == ((30, 35),)
    assert options.study_name(FRONT) == "front"
    assert {options.sampler_name, SearchOptions(max_ms=2, min_ms=1).sampler_name} <= {*SAMPLERS}


def test_a_record_is_the_one_of_the_version_before():
    # the phase settles the metric, by the task, before it is on record
    assert SearchOptions(min_ms=37.0, max_ms=42.0, metric="bbox_mAP").to_dict() == RECORD
    front = SearchOptions(pareto=True, storage="postgresql://me:secret@host/db").to_dict()
    assert front["storage"] == "postgresql://me:***@host/db"
    assert (front["interval_ms"], front["budgets"], front["sampler"]) == (None, [], "nsga2")
    assert "population" not in front


def test_the_command_and_latency_have_the_same_defaults():
    parameters = inspect.signature(command).parameters
    defaults = SearchOptions(pareto=True)
    shared = set(vars(defaults)) & set(parameters) - {"pareto", "img_size", "max_error"}
    assert len(shared) >= 20
    for name in shared:
        assert parameters[name].default == getattr(defaults, name), name
    assert parameters["max_error"].default == 100 * defaults.max_error
    assert (defaults.max_error, defaults.batch_size) == (MAX_ERROR, PAPER_BATCH)


def test_a_study_of_the_version_before_goes_on(run_search, landscape, tmp_path):
    """With the identity that it wrote, letter by letter."""
    identity = {
        "version": 2,
        "interval_ms": [37.0, 42.0],
        "space": [
            {
                "name": name,
                "group": name.split("_")[0],
                "choices": [0.0, 0.1, 0.2, 0.3, 0.4, 0.5, 0.6, 0.7, 0.8],
                "layers": 2,
            }
            for name in landscape.SPACE.names
        ],
        "sampler": {
            "name": "evolution",
            "seed": 3,
            "population": 6,
            "parents": 3,
            "mutation_prob": 0.1,
            "mutation_share": 0.5,
        },
        "latency": "measured",
        "halving": None,
        "scope": "backbone",
        "img_size": [64, 64],
        "checkpoint": "sha256:1",
    }
    same = {
        "sampler": None,
        "seed": 3,
        "population": 6,
        "parents": 3,
        "identity": {"scope": "backbone", "img_size": [64, 64], "checkpoint": "sha256:1"},
    }
    storage = tmp_path / "study.db"
    run_search(**same, storage=storage, trials=5)
    study = optuna.load_study(study_name="max42_min37", storage=f"sqlite:///{storage}")
    assert json.loads(json.dumps(study.user_attrs["identity"])) == identity
    study.set_user_attr("identity", identity)
    went_on = run_search(**same, storage=storage, trials=9)
    assert went_on.resumed_from >= 5
    assert [t.configuration for t in went_on.trials] == [
        t.configuration for t in run_search(**same, trials=9).trials
    ]
