"""best.yaml: all that the next phase and a reader need."""

import pytest
import yaml

from sparsevit.errors import UserError
from sparsevit.search.log import log_name
from sparsevit.search.results import write_best
from sparsevit.sparsity import read_configuration


def test_the_best_reads_back_as_a_configuration_and_says_what_it_is(
    run_search, landscape, tmp_path
):
    result = run_search()
    path = write_best(
        tmp_path / "best.yaml", result, landscape.SPACE, "coco/bbox_mAP", {"device": "cpu"}
    )
    assert read_configuration(path, landscape.SPACE) == result.best.configuration
    document = yaml.safe_load(path.read_text())
    assert document["score"] == result.best.score
    assert document["metric"] == "coco/bbox_mAP"
    assert document["latency_ms"] == result.best.latency_ms
    assert document["confirmed_ms"] == result.best.confirmed_ms
    assert document["interval_ms"] == [37, 42]
    assert document["trial"] == result.best.number
    assert document["device"] == "cpu"
    nested = landscape.SPACE.from_nested(document["pruning_ratios"])
    assert nested == result.best.configuration


def test_where_nothing_was_found_nothing_is_written(run_search, landscape, tmp_path):
    result = run_search(min_ms=38.0001, max_ms=38.0002, max_candidates=5)
    with pytest.raises(UserError, match="5 candidates"):
        write_best(tmp_path / "best.yaml", result, landscape.SPACE, "coco/bbox_mAP")
    assert not list(tmp_path.iterdir())


def test_the_log_is_named_as_in_the_papers_repository():
    assert log_name(37.0, 42.0) == "search_max42_min37.txt"
    assert log_name(37.5, 42) == "search_max42_min37.5.txt"
