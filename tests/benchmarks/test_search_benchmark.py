"""benchmarks/search_table.py and search.py: the table is whole, the arithmetic is right."""

import json
import random

import numpy as np
import pytest

from sparsevit.models import SparseViT
from sparsevit.search.samplers import SAMPLERS


@pytest.fixture
def table_file(bench, tmp_path):
    """A made-up table of the whole space, as search_table.py would write it."""
    space = bench("shared.demo_space")
    rng = random.Random(0)
    lines = ["kept_0,kept_1,kept_2,kept_3,configurations,bbox_ap,segm_ap,latency_ms"]
    for kept, configuration in space.networks().items():
        first, second, third, fourth = configuration.values()
        ap = 0.3 - 0.06 * first**2 - 0.03 * second - 0.005 * third + rng.gauss(0, 0.001)
        ms = 40 - 8 * first - 7 * second - 5 * third - 4 * fourth
        lines.append(",".join(map(str, [*kept, 1, round(ap, 3), 0.2, ms])))
    path = tmp_path / "search_table.csv"
    path.write_text("\n".join(lines) + "\n")
    path.with_suffix(".json").write_text(
        json.dumps({"checkpoint": "sha256:0", "networks": 810, "networks_of_the_space": 810})
    )
    return path


def test_windows_of_the_demo_are_those_of_the_backbone(bench):
    space = bench("shared.demo_space")
    backbone = SparseViT(embed_dims=32, depths=(2, 2, 2, 2), num_heads=(1, 2, 4, 8)).eval()
    import torch

    with torch.no_grad(), backbone.record_selections() as selections:
        backbone(torch.zeros(1, 3, space.IMG_SIZE, space.IMG_SIZE))
    plain = [s.grid[0] * s.grid[1] for s in selections if not s.shift]
    assert plain == space.windows()


def test_every_configuration_is_one_of_the_networks(bench):
    space = bench("shared.demo_space")
    networks = space.networks()
    assert len(networks) == 810
    assert {space.kept(configuration) for configuration in space.SPACE.every()} == set(networks)
    assert all(space.kept(configuration) == kept for kept, configuration in networks.items())


def test_a_line_that_a_kill_tore_is_taken_away(bench, tmp_path):
    Lines = bench("search_table").Lines
    path = tmp_path / "lines.jsonl"
    Lines(path, {"checkpoint": "a"}).add({"kept": [1]})
    with path.open("a") as file:
        file.write('{"kept": [2')
    again = Lines(path, {"checkpoint": "a"})
    assert again.rows == [{"kept": [1]}]
    again.add({"kept": [3]})
    assert Lines(path, {"checkpoint": "a"}).rows == [{"kept": [1]}, {"kept": [3]}]
    with pytest.raises(SystemExit, match="another checkpoint"):
        Lines(path, {"checkpoint": "b"})


def test_the_table_answers_for_every_configuration(bench, table_file):
    space, Table = bench("shared.demo_space"), bench("shared.demo_table").Table
    table = Table(table_file)
    assert len(table.kept) == space.SPACE.size()
    assert table.latency(space.SPACE.dense()) == 40
    assert table.score(space.SPACE.dense()) == pytest.approx(30, abs=0.5)
    low, high = table.interval(0, 1)
    assert low == table.latency(space.SPACE.max())
    assert high == 40
    assert all(30 <= table.latency(c) <= 31 for c in table.within((30, 31)))


def test_a_curve_is_the_best_so_far(bench):
    search = bench("search")
    found = search.curve([(1, 5.0), (3, 7.0), (150, 8.0)])
    assert len(found) == search.TRIALS
    assert found[:4] == [5.0, 5.0, 7.0, 7.0]
    assert found[148:150] == [7.0, 8.0]


def test_a_difference_has_an_interval_around_it(bench):
    search = bench("search")
    rng = np.random.default_rng(0)
    one, other = rng.normal(2, 1, (30, 5)), rng.normal(1, 1, (30, 5))
    found = search.difference(one, other, 3)
    assert found["mean"] == pytest.approx(one[:, 2].mean() - other[:, 2].mean(), abs=1e-3)
    low, high = found["ci95"]
    half_width = 1.96 * np.sqrt((one[:, 2].var() + other[:, 2].var()) / 30)
    assert (high - low) / 2 == pytest.approx(half_width, rel=0.1)
    assert low < found["mean"] < high


def test_reaching_counts_trials_to_the_median_of_the_reference(bench):
    search = bench("search")
    reference = np.tile(np.arange(search.TRIALS, dtype=float), (4, 1))
    quick = np.full((4, search.TRIALS), float(search.TRIALS))
    quick[:, :9] = 0
    never = np.zeros((4, search.TRIALS))
    found = search.reach({"evolution": reference, "quick": quick, "never": never})
    assert found["trials"]["evolution"]["median"] == search.TRIALS
    assert found["trials"]["quick"]["of_each_search"] == [10] * 4
    assert found["trials"]["never"]["reached"] == 0
    assert found["trials"]["never"]["median"] > search.TRIALS


def test_every_sampler_searches_the_table(bench, table_file, monkeypatch):
    search = bench("search")
    monkeypatch.setattr(search, "TABLE", table_file)
    monkeypatch.setattr(search, "TRIALS", 25)
    interval = next(iter(search.INTERVALS))
    assert {contender.sampler for contender in search.CONTENDERS.values()} == set(SAMPLERS)
    for name in search.CONTENDERS:
        steps = search.improvements(name, 0, interval)
        scores = [score for _, score in steps]
        assert steps[0][0] == 1
        assert scores == sorted(set(scores))
        assert steps == search.improvements(name, 0, interval)


def test_the_result_becomes_a_table_and_a_plot(bench, table_file, monkeypatch, tmp_path):
    search = bench("search")
    monkeypatch.setattr(search, "TABLE", table_file)
    monkeypatch.setattr(search, "TRIALS", 100)
    monkeypatch.setattr(search, "AT", (10, 100))
    few = {name: search.CONTENDERS[name] for name in ("random", "evolution")}
    monkeypatch.setattr(search, "CONTENDERS", few)
    monkeypatch.setattr(search, "COMPARED", (("evolution", "random"),))
    output = tmp_path / "search.json"
    monkeypatch.setattr("sys.argv", ["search.py", "--seeds", "2", "--output", str(output)])
    search.main()
    result = json.loads(output.read_text())
    assert result["command"] == "python benchmarks/search.py --seeds 2"
    text = bench("shared.tables").search(result)
    assert "| evolution |" in text
    assert "After 100 trials" in text
    bench("shared.plots").draw_search(result, tmp_path / "search.png")
    assert (tmp_path / "search.png").stat().st_size > 1000
