"""A configuration by the windows that it keeps: the same windows are the same network."""

from __future__ import annotations

import itertools

import pytest
import torch

from sparsevit.methods import networks_of
from sparsevit.models import SparseViT
from sparsevit.sparsity.handle import SparsityHandle

SIZES = ((48, 48), (32, 80))


@pytest.fixture(scope="module")
def model():
    torch.manual_seed(0)
    backbone = SparseViT(embed_dims=8, depths=[2, 2, 4, 2], num_heads=[1, 1, 2, 4])
    backbone.init_weights()
    return torch.nn.ModuleDict({"backbone": backbone}).eval()


def computed(model, configuration, sizes):
    SparsityHandle(model).set(configuration)
    maps = []
    for height, width in sizes:
        image = torch.randn(1, 3, height, width, generator=torch.Generator().manual_seed(height))
        with torch.no_grad():
            maps += model["backbone"](image)
    return maps


@pytest.mark.parametrize("sizes", [SIZES[:1], SIZES])
def test_configurations_compute_the_same_exactly_where_their_networks_are_equal(model, sizes):
    network, space = networks_of(model, sizes), SparsityHandle(model).space
    ratios = (0.0, 0.1, 0.2, 0.3, 0.4, 0.5, 0.8)
    each = [space.dense(), *(space.uniform(ratio) for ratio in ratios[1:])]
    each += [space.sorted({**space.dense(), space.names[0]: ratio}) for ratio in ratios[1:]]
    found = [(network(c), computed(model, c, sizes)) for c in each]
    same = 0
    for (one, maps), (other, others) in itertools.combinations(found, 2):
        alike = all(torch.equal(a, b) for a, b in zip(maps, others, strict=True))
        assert (one == other) == alike
        same += alike
    assert same > 0


def test_every_size_has_to_agree(model):
    space = SparsityHandle(model).space
    one, other = space.uniform(0.4), space.uniform(0.5)
    small, large = networks_of(model, [(48, 48)]), networks_of(model, [(480, 640)])
    assert small(one) == small(other)
    assert large(one) != large(other)
    both = networks_of(model, [(48, 48), (480, 640)])
    assert both(one) != both(other)


def test_where_sizes_are_not_known_ratios_tell(model):
    network, space = networks_of(model, ()), SparsityHandle(model).space
    assert network(space.uniform(0.4)) != network(space.uniform(0.5))
    assert network(space.uniform(0.4)) == network(dict(space.uniform(0.4)))


def test_looking_leaves_the_models_ratios(model):
    handle = SparsityHandle(model)
    handle.set(handle.space.uniform(0.3))
    networks_of(model, [(32, 80)])(handle.space.uniform(0.6))
    assert handle.get() == handle.space.uniform(0.3)
