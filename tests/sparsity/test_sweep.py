"""One knob at a time, within the rule of its group."""

from __future__ import annotations

from sparsevit.sparsity import Knob, Space
from sparsevit.sparsity.sweep import sweep

SWIN_T = Space.staged((2, 2, 6, 2), prefix="backbone.stages")


def test_a_sweep_raises_the_knobs_after_it_and_nothing_else():
    points = {(point.knob, point.ratio): point.configuration for point in sweep(SWIN_T)}
    assert len(points) == 8 * len(SWIN_T)
    assert points["backbone.stages.0", 0.3] == {**SWIN_T.dense(), "backbone.stages.0": 0.3}
    stage = ("backbone.stages.2_1", "backbone.stages.2_2", "backbone.stages.2_3")
    assert points[stage[1], 0.5] == {**SWIN_T.dense(), stage[1]: 0.5, stage[2]: 0.5}
    for configuration in points.values():
        SWIN_T.validate(configuration)


def test_a_group_whose_knobs_differ_in_choices_is_swept_where_each_needs_it():
    space = Space([Knob("a", "g", (0.0, 0.2)), Knob("b", "g", (0.0, 0.5))])
    ratios = {
        knob: [p.ratio for p in sweep(space, of_earlier=True) if p.knob == knob] for knob in "ab"
    }
    assert ratios == {"a": [0.2], "b": [0.2, 0.5]}


def test_without_the_earlier_knobs_choices_each_has_its_own():
    space = Space([Knob("a", "g", (0.0, 0.2)), Knob("b", "g", (0.0, 0.5))])
    assert [(p.knob, p.ratio) for p in sweep(space)] == [("a", 0.2), ("b", 0.5)]
    assert sweep(space)[0].configuration == {"a": 0.2, "b": 0.2}


def test_a_knob_that_can_only_be_dense_is_in_no_sweep():
    assert sweep(Space([Knob("a", "a", (0.0,))])) == []
