"""Steps: every configuration has some, and any are a configuration."""

import random

from hypothesis import given
from hypothesis import strategies as st

from sparsevit.search.samplers.steps import Steps
from sparsevit.sparsity import Knob, Space

SPACES = [
    Space.staged((2, 2, 6, 2)),
    Space([Knob("a", "s", (0, 0.3, 0.4)), Knob("b", "s", (0.1, 0.2, 0.8)), Knob("c", "t", (0.5,))]),
    # the highest choice of the first leaves the second none that is not below
    Space([Knob("a", "s", (0, 0.9)), Knob("b", "s", (0, 0.5))]),
]


@given(st.sampled_from(SPACES), st.integers())
def test_a_configuration_comes_back_from_its_steps(space, seed):
    configuration = space.sample(random.Random(seed))
    steps = Steps(space)
    encoded = steps.encode(configuration)
    assert steps.decode(encoded) == configuration
    assert all(0 <= encoded[name] <= most for name, most in steps.most.items())


@given(st.sampled_from(SPACES), st.data())
def test_any_steps_are_a_configuration_of_the_space(space, data):
    steps = Steps(space)
    drawn = {name: data.draw(st.integers(0, most)) for name, most in steps.most.items()}
    assert steps.decode(drawn) in space
