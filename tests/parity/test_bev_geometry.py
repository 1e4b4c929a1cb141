"""Lift and splat against loops in float64, and against a scene whose boxes are known."""

from __future__ import annotations

import math

import numpy as np
import torch
from bev_scene import cameras_around
from hypothesis import given, settings
from hypothesis import strategies as st
from mmdet.registry import MODELS

from sparsevit.models.bev import Cameras
from sparsevit.ops.bev_pool import plan_pooling

SIZE = (64, 96)
GRID = {
    "xbound": [-20.0, 20.0, 2.5],
    "ybound": [-16.0, 24.0, 4.0],
    "zbound": [-10.0, 10.0, 5.0],
    "dbound": [1.0, 30.0, 3.0],
}


def transformer(**kwargs):
    described = {
        "grid_config": GRID,
        "data_config": {"input_size": SIZE},
        "numC_input": 6,
        "numC_Trans": 5,
        **kwargs,
    }
    return MODELS.build({"type": "ViewTransformerLiftSplatShoot", **described}).eval()


def turn(axis, angle):
    """A rotation by an angle about the axis x (0), y (1) or z (2), float64."""
    cos, sin = math.cos(angle), math.sin(angle)
    matrix = np.eye(3)
    i, j = [(1, 2), (2, 0), (0, 1)][axis]
    matrix[i, i] = matrix[j, j] = cos
    matrix[i, j], matrix[j, i] = -sin, sin
    return matrix


def augmented_cameras(seed, batch=1, count=2, size=SIZE):
    """Cameras at random, and what augmentation does to images: scale, crop, flip, turn."""
    draw = np.random.default_rng(seed)
    fields = {name: [] for name in Cameras._fields}
    to_car = np.array([[0.0, 0, 1], [-1, 0, 0], [0, -1, 0]])
    for _ in range(batch * count):
        look = turn(2, draw.uniform(-3, 3)) @ turn(1, draw.uniform(-0.2, 0.2))
        focal = draw.uniform(0.8, 1.6, 2) * 2 * size[1]
        flip = np.diag([draw.choice([-1.0, 1.0]), 1.0, 1.0])
        scale = np.diag([*[draw.uniform(0.4, 0.6)] * 2, 1.0])
        middle = [draw.uniform(0.8, 1.2) * size[1], draw.uniform(0.8, 1.2) * size[0]]
        fields["rots"].append(look @ to_car)
        fields["trans"].append(draw.uniform(-2, 2, 3))
        fields["intrins"].append([[focal[0], 0, middle[0]], [0, focal[1], middle[1]], [0, 0, 1]])
        fields["post_rots"].append(turn(2, draw.uniform(-0.1, 0.1)) @ flip @ scale)
        fields["post_trans"].append([*draw.uniform(-20, 20, 2), 0.0])
    stacked = {name: torch.tensor(np.array(values)).float() for name, values in fields.items()}
    return Cameras(*(value.unflatten(0, (batch, count)) for value in stacked.values()))


def points_in_loops(view, cameras):
    """Float64, point by point, with numpy's inverse: (B, N, D, h, w, 3)."""
    frustum = view.frustum.double().numpy()
    parts = [part.double().numpy() for part in cameras]
    B, N = parts[1].shape[:2]
    points = np.zeros((B, N, *frustum.shape))
    for b in range(B):
        for n in range(N):
            rot, tran, intrin, post_rot, post_tran = (part[b, n] for part in parts)
            for place in np.ndindex(frustum.shape[:3]):
                pixel = np.linalg.inv(post_rot) @ (frustum[place] - post_tran)
                ray = np.linalg.inv(intrin) @ [pixel[0], pixel[1], 1.0]
                points[b, n][place] = rot @ (ray * pixel[2]) + tran
    return points


@settings(max_examples=15)
@given(st.integers(0, 999))
def test_points_are_where_the_cameras_see_them(seed):
    view, cameras = transformer(), augmented_cameras(seed, batch=2)
    got = view.get_geometry(*cameras)
    assert got.shape == (2, 2, 10, 4, 6, 3)
    expected = torch.from_numpy(points_in_loops(view, cameras))
    torch.testing.assert_close(got.double(), expected, rtol=1e-5, atol=1e-3)


def pooled_in_loops(view, cameras, weight_BQD, x_BQC):
    """Float64: each point's weight times its pixel's feature, added to the cell it is in."""
    points = points_in_loops(view, cameras)
    B, N, D, h, w, _ = points.shape
    bounds = [GRID[f"{axis}bound"] for axis in "xyz"]
    nx, ny, nz = (round((end - start) / step) for start, end, step in bounds)
    sums = np.zeros((B, nz, x_BQC.shape[-1], ny, nx))
    sure = True
    for b, n, d, i, j in np.ndindex(B, N, D, h, w):
        place = [
            (value - start) / step
            for value, (start, _, step) in zip(points[b, n, d, i, j], bounds, strict=True)
        ]
        # where rounding could decide, there is nothing to compare
        sure &= all(abs(value - round(value)) > 1e-4 for value in place)
        # the reference cuts off towards 0: from -1 to 0 is cell 0 too
        x, y, z = (math.trunc(value) for value in place)
        if min(place) > -1 and x < nx and y < ny and z < nz:
            q = (n * h + i) * w + j
            sums[b, z, :, y, x] += float(weight_BQD[b, q, d]) * x_BQC[b, q].double().numpy()
    return torch.from_numpy(sums.reshape(B, -1, ny, nx)), sure


@settings(max_examples=15)
@given(st.integers(0, 999))
def test_the_map_is_the_sum_of_the_points_in_each_cell(seed):
    torch.manual_seed(seed)
    view, cameras = transformer(), augmented_cameras(seed, batch=2)
    features = torch.randn(2, 2, 6, 4, 6)
    with torch.no_grad():
        weight, x = view.lift(features)
        got = view(features, cameras)
        by_index = view.splat(weight, x, view.cells(cameras))
    expected, sure = pooled_in_loops(view, cameras, weight, x)
    torch.testing.assert_close(by_index, got, rtol=1e-4, atol=1e-5)
    if sure:
        torch.testing.assert_close(got.double(), expected, rtol=1e-4, atol=1e-5)


def test_lift_gives_each_pixel_a_share_of_every_depth_and_its_features():
    view = transformer()
    features = torch.randn(2, 2, 6, 4, 6)
    with torch.no_grad():
        weight, x = view.lift(features)
    layer = view.depthnet
    for b, n, i, j in ((0, 0, 0, 0), (1, 1, 3, 5), (1, 0, 2, 1)):
        out = layer.weight[:, :, 0, 0].double() @ features[b, n, :, i, j].double()
        out = out + layer.bias.double()
        share = out[:10].exp() / out[:10].exp().sum()
        q = (n * 4 + i) * 6 + j
        torch.testing.assert_close(weight[b, q].double(), share, rtol=1e-5, atol=1e-6)
        torch.testing.assert_close(x[b, q].double(), out[10:], rtol=1e-4, atol=1e-5)


# --- a scene --------------------------------------------------------------------------------------


def seen_at(cameras, n, point):
    """Where camera n sees a point: x and y in pixels of the augmented image, and its depth."""
    rot, tran, intrin, post_rot, post_tran = (part[0, n].double().numpy() for part in cameras)
    in_camera = rot.T @ (np.asarray(point) - tran)
    pixel = intrin @ in_camera / in_camera[2]
    x, y, _ = post_rot @ pixel + post_tran
    return x, y, in_camera[2]


boxes = st.lists(
    st.tuples(st.floats(10, 45), st.integers(0, 5), st.floats(-0.35, 0.35), st.floats(0.5, 2)),
    min_size=1,
    max_size=5,
)


@settings(max_examples=25, deadline=None)
@given(boxes=boxes, seed=st.integers(0, 99))
def test_a_box_that_is_projected_to_a_pixel_is_found_where_it_is(boxes, seed):
    """The pixel and the depth at which a camera sees a box's centre, put into the frustum, come out
    at its centre; and all of a pixel's weight at that depth lands in the box's cell."""
    view = MODELS.build({"type": "ViewTransformerLiftSplatShoot", "numC_input": 4, "numC_Trans": 1})
    view.eval()
    draw = np.random.default_rng(seed)
    cameras = Cameras.of(cameras_around(6))
    # each image turned, scaled and moved, as in training
    change = torch.tensor(
        np.array([turn(2, draw.uniform(-0.1, 0.1)) @ np.diag([s, s, 1]) for s in (1, 0.9) * 3])
    ).float()
    cameras = cameras._replace(
        post_rots=change @ cameras.post_rots,
        post_trans=torch.tensor([[12.0, -7.0, 0.0]]).expand(1, 6, 3),
    )
    height, width = view.input_size
    for distance, nearest, off, z in boxes:
        angle = nearest * math.pi / 3 + off
        centre = (distance * math.cos(angle), distance * math.sin(angle), z)
        sightings = []
        for n in range(6):
            x, y, depth = seen_at(cameras, n, centre)
            if depth > 1 and 0 <= x < width and 0 <= y < height:
                sightings.append((n, x, y, depth))
        assert sightings
        for n, x, y, depth in sightings:
            view.frustum.zero_()
            view.frustum[0, 0, 0] = torch.tensor([x, y, depth])
            found = view.get_geometry(*cameras)[0, n, 0, 0, 0]
            torch.testing.assert_close(
                found.double(), torch.tensor(centre).double(), atol=1e-3, rtol=1e-4
            )

            pixels = 6 * 16 * 44
            weight, features = torch.zeros(1, pixels, 59), torch.zeros(1, pixels, 1)
            weight[0, n * 16 * 44, 0] = features[0, n * 16 * 44, 0] = 1
            cells = view.cells(cameras).flatten(0, 1)
            seen = view.splat(weight, features, plan_pooling(cells, 128 * 128))[0, 0]
            (row,), (column,) = seen.nonzero(as_tuple=True)
            assert abs(float(row) * 0.8 - 51.2 + 0.4 - centre[1]) <= 0.4 + 1e-3
            assert abs(float(column) * 0.8 - 51.2 + 0.4 - centre[0]) <= 0.4 + 1e-3


def test_cameras_that_look_all_around_reach_most_cells_near_them():
    view = MODELS.build({"type": "ViewTransformerLiftSplatShoot", "numC_input": 4, "numC_Trans": 1})
    cells = view.cells(Cameras.of(cameras_around(6)))
    reached = torch.bincount(cells.flatten(), minlength=128 * 128 + 1)[:-1].view(128, 128) > 0
    near = (torch.arange(128) - 63.5).abs() < 30
    assert reached[near][:, near].float().mean() > 0.8
