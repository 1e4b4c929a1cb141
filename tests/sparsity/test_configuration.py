"""Knobs and configurations: immutable, comparable by value, readable as text."""

import pickle

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from sparsevit.errors import UserError
from sparsevit.sparsity import (
    Configuration,
    ConfigurationError,
    Knob,
    choices_from,
    default_choices,
)

names = st.from_regex(r"[a-z]{1,8}(\.[0-9]){0,2}(_[1-9])?", fullmatch=True)
ratios = st.integers(0, 99).map(lambda hundredths: hundredths / 100)
configurations = st.dictionaries(names, ratios, min_size=1, max_size=8).map(Configuration)


@given(configurations)
def test_text_reads_back_as_the_same_configuration(configuration):
    assert Configuration.parse(str(configuration)) == configuration
    assert list(Configuration.parse(str(configuration))) == list(configuration)


def test_a_line_of_the_papers_log_is_read():
    line = "backbone.stages.0 0.6 backbone.stages.1 0 "
    assert Configuration.parse(line) == {"backbone.stages.0": 0.6, "backbone.stages.1": 0}


@given(configurations)
def test_pickle_gives_an_equal_configuration_with_the_same_hash(configuration):
    copy = pickle.loads(pickle.dumps(configuration))
    assert copy == configuration
    assert hash(copy) == hash(configuration)


@given(configurations)
def test_order_matters_neither_to_equality_nor_to_the_hash(configuration):
    other = Configuration(reversed(list(configuration.items())))
    assert other == configuration
    assert hash(other) == hash(configuration)


def test_it_equals_a_plain_mapping_of_the_same_ratios():
    assert Configuration({"a": 0.3, "b": 0}) == {"b": 0.0, "a": 0.3}
    assert Configuration({"a": 0.3}) != {"a": 0.2}
    assert Configuration({"a": 0.3}) != 0.3


def test_rounding_errors_of_sums_do_not_tell_ratios_apart():
    assert Configuration({"a": 3 * 0.1}) == Configuration({"a": 0.3})
    assert str(Configuration({"a": 3 * 0.1, "b": -0.0})) == "a=0.3,b=0"


def test_it_cannot_be_changed():
    configuration = Configuration({"a": 0.3})
    with pytest.raises(TypeError):
        configuration["a"] = 0.5
    configuration.to_dict()["a"] = 0.5
    assert configuration["a"] == 0.3


def test_numbers_of_numpy_become_plain_floats():
    configuration = Configuration({"a": np.float32(0.5), "b": np.int64(0)})
    assert all(type(value) is float for value in configuration.values())


def test_mean_is_over_knobs():
    assert Configuration({"a": 0.1, "b": 0.2, "c": 0.6}).mean() == pytest.approx(0.3)
    assert Configuration({}).mean() == 0


@pytest.mark.parametrize("value", [1.2, -0.1, 1.0, float("nan"), float("inf")])
def test_a_ratio_outside_of_0_to_1_is_refused_by_knob(value):
    with pytest.raises(ConfigurationError, match=r"'a\.b'.*not within \[0, 1\)") as caught:
        Configuration({"a.b": value})
    assert caught.value.knob == "a.b"


@pytest.mark.parametrize("value", ["0.3", True, None, [0.3], b"1"])
def test_what_is_no_number_is_refused_by_knob(value):
    with pytest.raises(ConfigurationError, match=r"'a\.b'.*not a number"):
        Configuration({"a.b": value})


@pytest.mark.parametrize("text", ["", "a", "a=0.1,b", "a=high", "a=0.1,a=0.2"])
def test_text_that_is_no_list_of_ratios_is_refused(text):
    with pytest.raises(ConfigurationError):
        Configuration.parse(text)


def test_the_error_is_a_users_mistake_and_a_value_error():
    assert issubclass(ConfigurationError, UserError)
    assert issubclass(ConfigurationError, ValueError)


def test_default_choices_are_those_of_the_paper():
    assert default_choices() == (0, 0.1, 0.2, 0.3, 0.4, 0.5, 0.6, 0.7, 0.8)


def test_choices_end_where_the_step_no_longer_fits():
    assert choices_from(0, 0.5, 0.2) == (0, 0.2, 0.4)
    assert choices_from(0.3, 0.3, 0.1) == (0.3,)


@pytest.mark.parametrize(("low", "high", "step"), [(0.5, 0.1, 0.1), (0, 1.0, 0.1), (0, 0.8, 0)])
def test_choices_that_make_no_sense_are_refused(low, high, step):
    with pytest.raises(ConfigurationError):
        choices_from(low, high, step)


def test_a_knob_keeps_its_choices_ascending_and_each_once():
    assert Knob("a", "a", (0.4, 0, 0.4, 3 * 0.1)).choices == (0, 0.3, 0.4)


@pytest.mark.parametrize(("choices", "layers"), [((), 1), ((0, 1.0), 1), ((0,), 0)])
def test_a_knob_without_a_choice_or_layer_is_refused_by_name(choices, layers):
    with pytest.raises(ConfigurationError, match=r"'stages\.0'"):
        Knob("stages.0", "stages.0", choices, layers)
