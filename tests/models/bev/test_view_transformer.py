"""The view transformer as a module: what it keeps for its cameras, and what it refuses."""

from __future__ import annotations

import copy
import pickle

import pytest
import torch
from bev_scene import cameras_around
from mmdet.registry import MODELS

from sparsevit.errors import UserError
from sparsevit.models.bev import Cameras
from sparsevit.models.bev import view_transformer as module

SIZE = (64, 128)
KEYS = ["dx", "bx", "nx", "frustum", "depthnet.weight", "depthnet.bias"]


def transformer(**kwargs):
    torch.manual_seed(0)
    described = {
        "type": "ViewTransformerLiftSplatShoot",
        "grid_config": {
            "xbound": [-51.2, 51.2, 3.2],
            "ybound": [-51.2, 51.2, 6.4],
            "zbound": [-10.0, 10.0, 20.0],
            "dbound": [1.0, 60.0, 2.0],
        },
        "data_config": {"input_size": SIZE},
        "numC_input": 8,
        "numC_Trans": 4,
        **kwargs,
    }
    return MODELS.build(described).eval()


def cameras(count=2):
    return Cameras.of(cameras_around(count, SIZE))


def features(batch=1, count=2):
    return torch.randn(batch, count, 8, 4, 8, generator=torch.Generator().manual_seed(0))


@pytest.fixture
def planned(monkeypatch):
    """Counts how often points are sorted."""
    calls = []
    plain = module.plan_pooling

    def counting(*arguments):
        calls.append(arguments)
        return plain(*arguments)

    monkeypatch.setattr(module, "plan_pooling", counting)
    return calls


def test_the_map_has_its_rows_along_y_and_its_columns_along_x():
    view = transformer()
    assert view(features(), cameras()).shape == (1, 4, 16, 32)
    assert list(view.state_dict()) == KEYS
    assert view.frustum.shape == (30, 4, 8, 3)


def test_layers_of_a_grid_are_channels_after_one_another():
    flat, layered = transformer(), transformer()
    bounds = {"zbound": [-10.0, 10.0, 10.0]}
    grid = {
        "xbound": [-51.2, 51.2, 3.2],
        "ybound": [-51.2, 51.2, 6.4],
        "dbound": [1.0, 60.0, 2.0],
        **bounds,
    }
    layered = transformer(grid_config=grid)
    layered.depthnet.load_state_dict(flat.depthnet.state_dict())
    seen = layered(features(), cameras())
    assert seen.shape == (1, 8, 16, 32)
    below, above = seen.split(4, dim=1)
    torch.testing.assert_close(below + above, flat(features(), cameras()))
    assert (below != 0).any()
    assert (above != 0).any()


def test_points_are_sorted_once_as_long_as_cameras_have_the_same_values(planned):
    view, given = transformer(), cameras()
    first = view(features(), given)
    assert torch.equal(view(features(), Cameras(*(part.clone() for part in given))), first)
    assert len(planned) == 1
    # changed in place, too
    given.trans[0, 0, 0] += 10
    changed = view(features(), given)
    assert len(planned) == 2
    assert not torch.equal(changed, first)
    view(features(2), Cameras(*(torch.cat((part, part)) for part in given)))
    assert len(planned) == 3


def test_training_keeps_nothing(planned):
    view = transformer().train()
    expected = view(features(), cameras())
    view(features(), cameras())
    assert len(planned) == 2
    assert view._kept is None
    assert torch.equal(view.eval()(features(), cameras()), expected)


def test_what_is_kept_is_not_copied_saved_or_loaded():
    view = transformer()
    expected = view(features(), cameras())
    assert view._kept is not None
    assert list(view.state_dict()) == KEYS
    for twin in (copy.deepcopy(view), pickle.loads(pickle.dumps(view))):
        assert twin._kept is None
        assert torch.equal(twin(features(), cameras()), expected)
    # weights bring a frustum of their own
    other = {name: value.clone() for name, value in view.state_dict().items()}
    other["frustum"][..., 2] += 3
    view.load_state_dict(other)
    assert not torch.equal(view(features(), cameras()), expected)


def test_what_inference_mode_left_behind_serves_training():
    view = transformer()
    with torch.inference_mode():
        expected = view(features(), cameras()).clone()
    x = features().requires_grad_()
    seen = view(x, cameras())
    seen.sum().backward()
    assert torch.equal(seen, expected)
    assert x.grad.abs().sum() > 0


def test_autocast_moves_no_point():
    view = transformer()
    expected = view.cells(cameras())
    with torch.autocast("cpu", torch.bfloat16):
        assert torch.equal(view.cells(cameras()), expected)
        assert view(features(), cameras()).dtype == torch.float32


def test_a_batch_is_its_samples():
    view, x = transformer(), features(2)
    both = Cameras(*(torch.cat((part, part + 0.01)) for part in cameras()))
    seen = view(x, both)
    for i in range(2):
        alone = view(x[i : i + 1], Cameras(*(part[i : i + 1] for part in both)))
        torch.testing.assert_close(seen[i], alone[0])


def test_images_of_another_size_are_refused():
    with pytest.raises(UserError, match=r"\(4, 8\).*got some of \(5, 8\)"):
        transformer()(torch.randn(1, 2, 8, 5, 8), cameras())
