"""Tables and curves of a sensitivity."""

from __future__ import annotations

import io

import pytest
from PIL import Image
from rich.console import Console

from sparsevit.latency.execution import Execution
from sparsevit.phases.sensitivity import SensitivityResult
from sparsevit.report.sensitivity import sensitivity_report
from sparsevit.report.sensitivity_plot import curves_figure, draw_sensitivity
from sparsevit.search.sensitivity import Response, Sensitivity
from sparsevit.sparsity import Space
from sparsevit.sparsity.sweep import sweep

SPACE = Space.staged((2, 2, 6, 2), prefix="backbone.stages")


@pytest.fixture
def found():
    def response(knob, ratio, configuration):
        mean = configuration.mean()
        scores = {"bbox_mAP": 40 - 10 * mean, "bbox_mAP_50": 60 - 10 * mean}
        return Response(knob, ratio, configuration, scores, 200 - 100 * mean)

    points = [response(p.knob, p.ratio, p.configuration) for p in sweep(SPACE)]
    return Sensitivity(response(None, 0.0, SPACE.dense()), tuple(points), 6, "predicted")


def test_a_table_has_a_row_a_knob_and_fits_a_terminal(found, tmp_path):
    console = Console(file=io.StringIO(), width=80)
    result = SensitivityResult(
        run="sensitivity/run-001",
        sensitivity=found,
        metric="bbox_mAP",
        file=tmp_path / "sensitivity.json",
        plots={},
        execution=Execution(),
        resumed=False,
    )
    console.print(sensitivity_report(result).renderables[0])
    text = console.file.getvalue()
    assert "…" not in text
    rows = [line for line in text.splitlines() if "stages." in line]
    assert len(rows) == len(SPACE)
    # 0.8 in one of six knobs, ten points for a mean of 1
    assert rows[0].split()[-2] == "-1.33"


def test_a_line_a_knob_from_what_dense_has(found):
    figure = curves_figure(found.latencies(), "milliseconds")
    (ax,) = figure.axes
    lines = [line for line in ax.lines if not line.get_label().startswith("_")]
    assert [line.get_label() for line in lines] == [
        n.removeprefix("backbone.") for n in SPACE.names
    ]
    assert {line.get_ydata()[0] for line in lines} == {200}
    assert list(lines[0].get_xdata()) == pytest.approx([ratio / 10 for ratio in range(9)])


def test_pictures_of_the_metric_of_the_headlines_and_of_latency(found, tmp_path):
    drawn = draw_sensitivity(found, "bbox_mAP_50", tmp_path)
    assert list(drawn) == ["bbox_mAP_50", "bbox_mAP", "latency"]
    for path in drawn.values():
        with Image.open(path) as picture:
            assert picture.format == "PNG"
            assert picture.width > 500
