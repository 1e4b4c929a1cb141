"""The picture of a search, and the front that is in it."""

import pytest
from matplotlib.image import imread

from sparsevit.report.search_plot import draw_front
from sparsevit.search.front import Reference, front_of
from sparsevit.search.loop import search
from sparsevit.search.options import SearchOptions
from sparsevit.sparsity import Space

SPACE = Space.staged((2, 2, 6, 2), prefix="backbone.stages")


@pytest.fixture(scope="module")
def result():
    return search(
        SPACE,
        lambda configuration: 60 - 50 * configuration.mean(),
        lambda configuration: 40 - configuration["backbone.stages.0"],
        SearchOptions(min_ms=30, max_ms=45, trials=20, sampler="random"),
    )


def test_no_trial_is_better_than_one_of_the_front_in_both(result):
    front = front_of(result.trials)
    assert front
    for trial in front:
        for other in result.trials:
            if other.state == "scored":
                assert not (other.score > trial.score and other.latency_ms <= trial.latency_ms)
    scored = [trial for trial in result.trials if trial.state == "scored"]
    for trial in scored:
        assert any(f.score >= trial.score and f.latency_ms <= trial.latency_ms for f in front)
    assert [t.latency_ms for t in front] == sorted(t.latency_ms for t in front)


def test_the_picture_is_drawn(result, tmp_path):
    references = [
        Reference("dense", SPACE.dense(), 60.0, 40.0),
        Reference("uniform 0.4", SPACE.uniform(0.4), 40.0, 39.6),
    ]
    path = draw_front([result], references, "bbox_mAP", tmp_path / "search.png", [result])
    pixels = imread(path)
    assert pixels.shape[0] > 300
    assert len({tuple(pixel) for row in pixels[::5, ::5] for pixel in row}) > 10
