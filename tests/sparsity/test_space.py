"""The space: what is drawn is valid, what is counted exists, what is wrong is named."""

import itertools
import math
import random
import subprocess
import sys
from collections import Counter

import pytest
from hypothesis import given
from hypothesis import strategies as st

from sparsevit.sparsity import Configuration, ConfigurationError, Knob, Space, choices_from

SWIN_T = Space.staged((2, 2, 6, 2), prefix="backbone.stages")
CFG2 = [[0.6, 0.6], [0, 0], [0.2, 0.2, 0.4, 0.4, 0.5, 0.5], [0, 0]]

some_choices = st.sets(st.integers(0, 9), min_size=1, max_size=4).map(
    lambda tenths: tuple(tenth / 10 for tenth in tenths)
)


@st.composite
def spaces(draw):
    """Small spaces, whose knobs may have choices of their own; only those that admit a setting."""
    knobs = []
    for group in range(draw(st.integers(1, 3))):
        shared = draw(some_choices)
        members = draw(st.integers(1, 3))
        # Alike choices are the common case; different ones must work too.
        alike = draw(st.booleans())
        floor = 0.0
        for index in range(members):
            choices = shared if alike else draw(some_choices)
            if max(choices) < floor:
                choices = (*choices, floor)
            floor = max(floor, min(choice for choice in choices if choice >= floor))
            name = f"stages.{group}" if members == 1 else f"stages.{group}_{index + 1}"
            knobs.append(Knob(name, f"stages.{group}", choices, draw(st.integers(1, 2))))
    return Space(knobs)


def every_configuration(space):
    """All settings that never fall within a group, by brute force."""
    for values in itertools.product(*(knob.choices for knob in space.knobs)):
        setting = dict(zip(space.names, values, strict=True))
        rows = [[setting[knob.name] for knob in group] for group in space.groups.values()]
        if all(row == sorted(row) for row in rows):
            yield setting


@given(spaces(), st.integers())
def test_a_sample_is_valid_and_never_falls_within_a_group(space, seed):
    configuration = space.sample(random.Random(seed))
    assert space.validate(configuration, strict=True) == configuration
    assert configuration in space
    for group in space.groups.values():
        row = [configuration[knob.name] for knob in group]
        assert row == sorted(row)


@given(spaces(), st.integers())
def test_the_same_seed_draws_the_same_configuration(space, seed):
    assert space.sample(random.Random(seed)) == space.sample(random.Random(seed))


@given(spaces())
def test_size_is_the_number_of_configurations_that_there_are(space):
    assert space.size() == sum(1 for _ in every_configuration(space))


@given(spaces())
def test_every_configuration_comes_once_the_least_sparse_first(space):
    found = list(space.every())
    assert len(found) == len(set(found)) == space.size()
    assert all(configuration in space for configuration in found)
    assert found[0] == space.min()
    assert found[-1] == space.max()


def test_size_of_the_papers_space_counts_multisets_of_the_third_stage():
    assert SWIN_T.size() == 9**3 * math.comb(9 + 3 - 1, 3)


@given(spaces(), st.data())
def test_sorted_gives_a_configuration_of_the_space_and_changes_it_no_more(space, data):
    values = {name: data.draw(st.integers(0, 99)) / 100 for name in space.names}
    once = space.sorted(values)
    assert once in space
    assert space.sorted(once) == once


def test_sorted_sorts_within_each_group_only():
    assert SWIN_T.sorted(
        dict(zip(SWIN_T.names, (0.8, 0, 0.5, 0.1, 0.3, 0.2), strict=True))
    ) == dict(zip(SWIN_T.names, (0.8, 0, 0.1, 0.3, 0.5, 0.2), strict=True))


def test_samples_have_the_marginals_of_sorted_uniform_draws():
    space = Space.staged((6, 2), choices=(0, 0.1, 0.2))
    draws = 30_000
    rng = random.Random(0)
    seen = Counter(tuple(space.sample(rng).values()) for _ in range(draws))
    expected = Counter(
        (*sorted(row[:3]), row[3]) for row in itertools.product((0, 0.1, 0.2), repeat=4)
    )
    total = sum(expected.values())
    assert seen.keys() == expected.keys()
    # Chi-square with 29 degrees of freedom: above 58.3 once in a thousand.
    chi_square = sum(
        (seen[setting] - draws * weight / total) ** 2 / (draws * weight / total)
        for setting, weight in expected.items()
    )
    assert chi_square < 58.3


@given(spaces(), st.integers())
def test_nested_lists_read_back_as_the_same_configuration(space, seed):
    configuration = space.sample(random.Random(seed))
    nested = space.to_nested(configuration)
    assert tuple(map(len, nested)) == space.depths
    assert space.from_nested(nested) == configuration


@given(spaces())
def test_plain_data_reads_back_as_the_same_space(space):
    assert Space.from_dict(space.to_dict()) == space
    assert hash(Space.from_dict(space.to_dict())) == hash(space)


@given(spaces())
def test_dense_lowest_and_sparsest_bound_every_configuration(space):
    lowest, sparsest = space.min(), space.max()
    assert lowest in space
    assert sparsest in space
    assert space.validate(space.dense()).mean() == 0
    for setting in itertools.islice(every_configuration(space), 50):
        for name, ratio in setting.items():
            assert lowest[name] <= ratio <= sparsest[name]


def test_names_are_those_of_the_model():
    assert SWIN_T.names == (
        "backbone.stages.0",
        "backbone.stages.1",
        "backbone.stages.2_1",
        "backbone.stages.2_2",
        "backbone.stages.2_3",
        "backbone.stages.3",
    )
    assert list(SWIN_T.groups) == [f"backbone.stages.{stage}" for stage in range(4)]


def test_a_prefix_names_the_part_of_a_larger_model():
    assert Space.staged((2, 2, 6, 2)).prefixed("backbone") == SWIN_T
    assert SWIN_T.prefixed("") is SWIN_T


def test_spaces_of_two_parts_join():
    joined = SWIN_T + SWIN_T.prefixed("teacher")
    assert len(joined) == 12
    assert joined.size() == SWIN_T.size() ** 2
    with pytest.raises(ConfigurationError, match=r"Two knobs are named 'backbone\.stages\.0'"):
        SWIN_T + SWIN_T


def test_the_last_knob_of_an_odd_stage_sets_what_is_left():
    assert [knob.layers for knob in Space.staged((3,)).knobs] == [2, 1]


def test_the_papers_configurations_are_read():
    assert list(SWIN_T.from_nested(CFG2).values()) == [0.6, 0, 0.2, 0.4, 0.5, 0]
    assert SWIN_T.from_nested(0.6) == SWIN_T.uniform(0.6)
    assert list(SWIN_T.from_nested([0.1, 0.2, 0.3, 0.4]).values()) == [0.1, 0.2, *[0.3] * 3, 0.4]


@pytest.mark.parametrize(
    ("nested", "message"),
    [
        ([[0.6, 0.6]], "1 lists of ratios for 4 stages"),
        ([[0.6], [0, 0], [0] * 6, [0, 0]], r"backbone\.stages\.0 has 2 layers, and 1 ratios"),
        (
            [[0.6, 0.5], [0, 0], [0] * 6, [0, 0]],
            r"\.stages\.0' have the ratios 0\.6, 0\.5",
        ),
        (
            [[0, 0], [0, 0], [0.4] * 2 + [0.2] * 4, [0, 0]],
            r"\.stages\.2_2' is 0\.2, below",
        ),
        ([[0, 0], [0, 1.2], [0] * 6, [0, 0]], r"Ratio 2 of backbone\.stages\.1 .* is 1\.2"),
        ([[0, 0], [0, "x"], [0] * 6, [0, 0]], r"Ratio 2 of backbone\.stages\.1 .* not a number"),
        ("0.6", "not a number"),
    ],
)
def test_nested_lists_that_do_not_fit_say_where(nested, message):
    with pytest.raises(ConfigurationError, match=message):
        SWIN_T.from_nested(nested)


@given(spaces(), st.data())
def test_an_error_names_the_knob_that_is_wrong(space, data):
    name = data.draw(st.sampled_from(space.names))
    good = space.min().to_dict()
    without = {key: value for key, value in good.items() if key != name}
    wrongs = [
        ({**good, name: 1.2}, name),
        ({**good, name: "high"}, name),
        (without, name),
        ({**good, f"{name}x": 0.1}, f"{name}x"),
    ]
    for wrong, knob in wrongs:
        with pytest.raises(ConfigurationError) as caught:
            space.validate(wrong)
        assert caught.value.knob == knob
        assert repr(knob) in str(caught.value) or knob in str(caught.value)


def test_an_unknown_knob_is_answered_with_the_closest_name():
    wrong = {**SWIN_T.dense(), "backbone.stage.2_2": 0.1}
    with pytest.raises(ConfigurationError, match=r"Did you mean 'backbone\.stages\.2_2'"):
        SWIN_T.validate(wrong)
    with pytest.raises(ConfigurationError, match=r"The knobs are backbone\.stages\.0,"):
        SWIN_T.validate({**SWIN_T.dense(), "qqq": 0.1})


def test_a_ratio_that_falls_within_a_stage_is_refused_by_name():
    wrong = {**SWIN_T.dense(), "backbone.stages.2_1": 0.3, "backbone.stages.2_2": 0.3}
    with pytest.raises(ConfigurationError, match=r"'backbone\.stages\.2_3' is 0, below the 0\.3"):
        SWIN_T.validate(wrong)


def test_only_strict_validation_refuses_a_ratio_that_is_no_choice():
    assert SWIN_T.validate(SWIN_T.uniform(0.25)) == SWIN_T.uniform(0.25)
    assert SWIN_T.uniform(0.25) not in SWIN_T
    with pytest.raises(ConfigurationError, match=r"'backbone\.stages\.0' is 0\.25, .* 0\.1, 0\.2"):
        SWIN_T.validate(SWIN_T.uniform(0.25), strict=True)


def test_validation_gives_the_order_of_the_space():
    shuffled = dict(reversed(list(SWIN_T.from_nested(CFG2).items())))
    assert tuple(SWIN_T.validate(shuffled)) == SWIN_T.names
    assert isinstance(SWIN_T.validate(shuffled), Configuration)


def test_what_is_no_mapping_is_refused():
    with pytest.raises(ConfigurationError, match="not list"):
        SWIN_T.validate([0.1])
    assert 0.3 not in SWIN_T


def test_choices_that_can_only_fall_are_refused_by_name():
    with pytest.raises(ConfigurationError, match=r"'s_1' are all above"):
        Space([Knob("s_1", "s", (0.5,)), Knob("s_2", "s", choices_from(0, 0.4, 0.1))])


def test_nothing_here_needs_torch():
    code = "import sys, sparsevit.sparsity; assert 'torch' not in sys.modules, 'torch is imported'"
    subprocess.run([sys.executable, "-c", code], check=True)
