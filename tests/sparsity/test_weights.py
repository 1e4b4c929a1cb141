"""Prune and grow, against slow references in plain Python."""

from __future__ import annotations

import math

import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st

from sparsevit.errors import UserError
from sparsevit.sparsity.weights import (
    death_rate,
    erk_densities,
    head_scores,
    prunable,
    prune_and_grow,
    prune_and_grow_heads,
    prune_and_grow_n_m,
    prune_and_grow_neurons,
    random_mask,
    random_n_m_mask,
)

seeds = st.integers(0, 2**31)
rates = st.floats(0, 1)
# few values, so that many scores are equal
coarse = st.booleans()


def drawn(seed, *shape, few=False):
    generator = torch.Generator().manual_seed(seed)
    values = torch.randn(*shape, generator=generator, dtype=torch.float64)
    return (values * 2).round() / 2 if few else values


def slow_replace(alive, death, growth, rate):
    """Lists of bool and float in, a list of bool out."""
    living = [i for i, one in enumerate(alive) if one]
    count = math.ceil(rate * len(living))
    dying = set(sorted(living, key=lambda i: (death[i], i))[:count])
    dead = [i for i in range(len(alive)) if not alive[i] or i in dying]
    grown = set(sorted(dead, key=lambda i: (-growth[i], i))[:count])
    return [(alive[i] and i not in dying) or i in grown for i in range(len(alive))]


# --- Erdős–Rényi–Kernel --------------------------------------------------------------------------


def deit_shapes(width, classes=1000):
    shapes = {"patch_embed": (width, 3, 16, 16), "head": (classes, width)}
    for n in range(12):
        shapes |= {f"{n}.qkv": (3 * width, width), f"{n}.proj": (width, width)}
        shapes |= {f"{n}.fc1": (4 * width, width), f"{n}.fc2": (width, 4 * width)}
    return shapes


def test_densities_of_deit_s_are_those_of_the_paper():
    found = erk_densities(deit_shapes(384), 0.4)
    wanted = {"patch_embed": 0.1649, "3.qkv": 0.4029, "3.proj": 0.6044}
    wanted |= {"3.fc1": 0.3778, "3.fc2": 0.3778}
    assert {name: round(found[name], 4) for name in wanted} == wanted


layers = st.lists(
    st.one_of(
        st.tuples(st.integers(1, 40), st.integers(1, 40)),
        st.tuples(st.integers(1, 20), st.integers(1, 4), st.integers(1, 5), st.integers(1, 5)),
    ),
    min_size=1,
    max_size=8,
)


@given(layers, st.floats(0.01, 1))
def test_layers_together_have_the_density_that_was_asked_for(shapes, density):
    named = {str(n): shape for n, shape in enumerate(shapes)}
    found = erk_densities(named, density)
    assert all(0 < one <= 1 for one in found.values())
    alive = sum(found[name] * math.prod(shape) for name, shape in named.items())
    assert alive == pytest.approx(density * sum(map(math.prod, shapes)))
    # one epsilon for all layers that are not dense
    epsilons = [f * math.prod(named[n]) / sum(named[n]) for n, f in found.items() if f < 1]
    assert epsilons == pytest.approx([epsilons[0]] * len(epsilons)) if epsilons else True


@pytest.mark.parametrize("density", [0, -0.1, 1.01, math.nan, "half", True])
def test_a_density_that_is_none_is_refused(density):
    with pytest.raises(UserError, match=r"not within \(0, 1\]"):
        erk_densities({"a": (4, 4)}, density)


# --- connections ---------------------------------------------------------------------------------


@given(seeds, st.integers(1, 6), st.integers(2, 7), st.floats(0.05, 0.95), rates, coarse)
def test_connections_die_and_grow_as_in_the_slow_reference(seed, rows, columns, density, rate, few):
    weight, gradient = drawn(seed, rows, columns, few=few), drawn(seed + 1, rows, columns, few=few)
    mask = random_mask((rows, columns), density, torch.Generator().manual_seed(seed))
    found = prune_and_grow(weight, mask, gradient, rate)
    if mask.all():
        assert found.all()
        return
    flat = [one.flatten().tolist() for one in (mask, weight.abs(), gradient.abs())]
    assert found.flatten().tolist() == slow_replace(*flat, rate)
    assert found.sum() == mask.sum()


def test_a_layer_that_is_wholly_alive_is_left_alone():
    weight = drawn(0, 4, 4)
    assert prune_and_grow(weight, torch.ones(4, 4, dtype=torch.bool), weight, 0.5).all()


@given(seeds, st.integers(1, 50), st.floats(0.01, 1))
def test_a_random_mask_has_the_number_asked_for(seed, size, density):
    def mask():
        return random_mask((size, 2), density, torch.Generator().manual_seed(seed))

    assert int(mask().sum()) == max(1, round(density * 2 * size))
    assert torch.equal(mask(), mask())


# --- neurons and heads ---------------------------------------------------------------------------


@given(seeds, st.integers(1, 12), st.integers(1, 5), st.floats(0, 1), rates, coarse)
def test_neurons_die_and_grow_as_in_the_slow_reference(seed, hidden, width, share, rate, few):
    fc1, g1 = (drawn(seed + n, hidden, width, few=few) for n in (0, 1))
    fc2, g2 = (drawn(seed + n, width, hidden, few=few) for n in (2, 3))
    kept = random_mask((hidden,), share, torch.Generator().manual_seed(seed))

    def norms(rows, columns):
        return [
            sum(abs(float(rows[j, c])) for c in range(width))
            + sum(abs(float(columns[c, j])) for c in range(width))
            for j in range(hidden)
        ]

    found = prune_and_grow_neurons(fc1, fc2, g1, g2, kept, rate)
    # sums of few values are exact in any order
    if few:
        assert found.tolist() == slow_replace(kept.tolist(), norms(fc1, fc2), norms(g1, g2), rate)
    assert found.sum() == kept.sum()


@given(seeds, st.integers(1, 12), st.floats(0, 1), rates, coarse)
def test_heads_die_and_grow_as_in_the_slow_reference(seed, heads, share, rate, few):
    death, growth = drawn(seed, heads, few=few).abs(), drawn(seed + 1, heads, few=few).abs()
    kept = random_mask((heads,), share, torch.Generator().manual_seed(seed))
    found = prune_and_grow_heads(death, growth, kept, rate)
    assert found.tolist() == slow_replace(kept.tolist(), death.tolist(), growth.tolist(), rate)
    assert found.sum() == kept.sum()


def test_scores_of_heads_are_sums_over_what_each_gives_out():
    batch, tokens, heads, width = 3, 5, 2, 4
    out, grad = drawn(0, batch, tokens, heads * width), drawn(1, batch, tokens, heads * width)
    death, growth = head_scores(out, grad, heads)
    for head in range(heads):
        products, norms = [], []
        for image in range(batch):
            at = [(n, head * width + c) for n in range(tokens) for c in range(width)]
            products.append(abs(sum(float(out[image, n, c] * grad[image, n, c]) for n, c in at)))
            norms.append(sum(abs(float(grad[image, n, c])) for n, c in at))
        assert float(death[head]) == pytest.approx(sum(products) / batch, rel=1e-5)
        assert float(growth[head]) == pytest.approx(sum(norms) / batch, rel=1e-5)


# --- n of every m --------------------------------------------------------------------------------


@given(
    seeds, st.integers(1, 5), st.integers(1, 4), st.sampled_from([(2, 4), (1, 4), (4, 8)]), rates
)
def test_every_group_keeps_its_number_alive(seed, rows, groups, form, rate):
    n, m = form
    shape = (rows, groups * m)
    mask = random_n_m_mask(shape, n, m, torch.Generator().manual_seed(seed))
    assert (mask.view(-1, m).sum(dim=1) == n).all()
    weight, gradient = drawn(seed, *shape), drawn(seed + 1, *shape)
    found = prune_and_grow_n_m(weight, mask, gradient, rate, m)
    assert (found.view(-1, m).sum(dim=1) == n).all()
    # who dies is a matter of the layer, who grows one of the group
    living = mask.flatten().nonzero().flatten().tolist()
    size = weight.abs().flatten().tolist()
    dying = set(sorted(living, key=lambda i: size[i])[: math.ceil(rate * len(living))])
    pull = gradient.abs().flatten().tolist()
    for start in range(0, mask.numel(), m):
        group = range(start, start + m)
        stay = [i for i in group if i in living and i not in dying]
        dead = sorted((i for i in group if i not in stay), key=lambda i: -pull[i])
        wanted = sorted(stay + dead[: n - len(stay)])
        assert found.flatten()[start : start + m].nonzero().flatten().add(start).tolist() == wanted


# --- schedule and choice -------------------------------------------------------------------------


def test_the_death_rate_falls_from_a_half_along_a_cosine():
    rates = [death_rate(step, 100) for step in range(101)]
    assert rates[0] == 0.5
    assert rates[50] == pytest.approx(0.2525)
    assert rates[100] == pytest.approx(0.005)
    assert rates == sorted(rates, reverse=True)
    assert death_rate(120, 100, start=0.3, end=0.1) == pytest.approx(0.1)


@pytest.mark.parametrize(
    ("name", "shape", "expected"),
    [
        ("backbone.layers.0.attn.qkv.weight", (9, 3), True),
        ("backbone.patch_embed.projection.weight", (8, 3, 16, 16), True),
        ("head.layers.head.weight", (10, 8), True),
        ("backbone.layers.0.attn.qkv.bias", (9,), False),
        ("backbone.ln1.weight", (8,), False),
        ("backbone.pos_embed", (1, 5, 8), False),
        ("backbone.cls_token", (1, 1, 8), False),
        ("backbone.token_selector.weight", (1, 8), False),
    ],
)
def test_weights_of_two_or_four_dimensions_are_pruned(name, shape, expected):
    assert prunable(name, shape) is expected
