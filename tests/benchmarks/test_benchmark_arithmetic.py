"""What the benchmarks compute apart from times: fits, floors, peaks, parts, merged files."""

from __future__ import annotations

from types import SimpleNamespace

import pytest
import torch


def test_a_line_is_found_and_says_how_well_it_fits(bench):
    fit = bench("shared.fit")
    exact = fit.line([1, 2, 3, 4], [5, 7, 9, 11])
    assert (exact.intercept, exact.slope, exact.r2) == pytest.approx((3, 2, 1))
    assert fit.line([1, 2, 3, 4], [5, 8, 8, 11]).r2 < 0.95


@pytest.mark.parametrize("power", [1, 2])
def test_the_exponent_of_a_power_is_found(bench, power):
    x = [1764, 28224, 112896]
    assert bench("shared.fit").exponent(x, [3 * a**power for a in x]) == pytest.approx(power)


def test_products_are_counted_by_shape(bench):
    floor = bench("shared.floor")
    model = torch.nn.Sequential(torch.nn.Linear(8, 16), torch.nn.Linear(16, 8, bias=False))
    images = torch.randn(2, 5, 8)
    shapes = floor.product_shapes(lambda: model(model(images)))
    assert shapes == {(10, 8, 16): 2, (10, 16, 8): 2}
    assert floor.gemm_gflops(shapes, rounds=2) > 0
    assert floor.floor_ms(gmacs=40, gflops=80) == pytest.approx(1000)


def test_the_shapes_of_a_swin_are_nearly_all_of_its_multiplications(bench):
    from sparsevit.latency.cost import gmacs

    swin, _ = bench("shared.swin").backbones()
    images = bench("shared.swin").random_images(1, 224)

    def call():
        with torch.no_grad():
            return swin(images)

    shapes = bench("shared.floor").product_shapes(call)
    counted = sum(rows * inner * columns * n for (rows, inner, columns), n in shapes.items()) / 1e9
    assert 0.9 < counted / gmacs(call) < 1


def test_the_peak_is_what_was_held_at_once(bench):
    megabyte = torch.ones(2**18)

    def call():
        a = megabyte.repeat(8)
        b = a + 1
        del a
        c = b + 1
        return len(c)

    found = bench("shared.memory").peak_memory(call)
    assert found.allocated_mib == pytest.approx(16, abs=0.5)


def test_kept_shares_are_means_over_blocks(bench):
    swin = bench("shared.swin")
    assert swin.kept_share(swin.CONFIGURATIONS["dense"]) == 1
    assert swin.kept_share(swin.CONFIGURATIONS["60%"]) == pytest.approx(0.4)
    assert swin.kept_share([[0.5, 0.5], [0.0] * 6]) == pytest.approx(7 / 8)


def test_a_stopwatch_splits_a_call_and_leaves_no_trace(bench):
    stopwatch = bench("shared.stopwatch").Stopwatch()
    room = SimpleNamespace(inner=lambda: None, other=lambda: None)
    room.outer = lambda: room.inner()

    def call():
        room.outer()
        room.other()
        room.other()

    before = dict(vars(room))
    with stopwatch.watching([(name, room, name) for name in ("outer", "inner", "other")]):
        whole, spent = stopwatch.split(call)
    assert set(spent) == {"outer", "other"}  # inner ran within outer
    assert 0 < sum(spent.values()) <= whole
    assert vars(room) == before


def run_of(device="a Xeon", results=(), left_out=()):
    return {
        "command": "python benchmarks/backends.py",
        "machine": {"device": device, "cores": 2, "threads": 2, "load_average": [0.1]},
        "img_size": 672,
        "results": {name: {"ms": ms} for name, ms in dict(results).items()},
        "left_out": dict(left_out),
    }


def test_a_partial_run_replaces_its_own_rows_alone(bench):
    earlier = run_of(results={"eager fp32": 1, "openvino fp32": 2}, left_out={"compile fp32": "no"})
    later = run_of(results={"openvino fp32": 3, "compile fp32": 4})
    result = bench("shared.record").merged(earlier, later, ["img_size"])
    assert result["results"] == {
        "eager fp32": {"ms": 1},
        "openvino fp32": {"ms": 3},
        "compile fp32": {"ms": 4},
    }
    assert result["left_out"] == {}


def test_what_can_no_longer_be_had_keeps_no_old_row(bench):
    earlier = run_of(results={"openvino fp32": 2})
    later = run_of(left_out={"openvino fp32": "is not installed"})
    result = bench("shared.record").merged(earlier, later, ["img_size"])
    assert result["results"] == {}
    assert result["left_out"] == {"openvino fp32": "is not installed"}


@pytest.mark.parametrize("change", [{"img_size": 1344}, {"machine": {"device": "another"}}])
def test_figures_of_another_machine_or_size_are_not_merged(bench, change):
    earlier, later = run_of(), run_of()
    later["machine"].update(change.get("machine", {}))
    later["img_size"] = change.get("img_size", 672)
    with pytest.raises(SystemExit, match="Not merged"):
        bench("shared.record").merged(earlier, later, ["img_size"])


def test_what_disagrees_is_told_from_what_rounding_does(bench):
    compare = bench("shared.agreement").agreement
    maps = [torch.randn(1, 8, 6, 6), torch.randn(1, 16, 3, 3)]
    rounded = [one.bfloat16().float() for one in maps]
    assert compare(rounded, maps).holds("bf16", dense=True)
    assert not compare(rounded, maps).holds("fp32", dense=True)
    wrong = [maps[0], maps[1] * float("nan")]
    assert not compare(wrong, maps).holds("bf16", dense=False)


def test_every_way_to_pool_by_cell_sums_up_the_same(bench):
    pooling = bench("shared.bev_pooling")
    from bev_scene import cameras_around

    from sparsevit.models.bev import Cameras, ViewTransformerLiftSplatShoot

    grid = {
        "xbound": [-51.2, 51.2, 6.4],
        "ybound": [-51.2, 51.2, 3.2],
        "zbound": [-10.0, 10.0, 20.0],
        "dbound": [1.0, 60.0, 4.0],
    }
    view = ViewTransformerLiftSplatShoot(grid, {"input_size": (64, 96)}, 8, 4).eval()
    given = cameras_around(2, (64, 96))
    cameras = Cameras.of({name: torch.cat((one, one)) for name, one in given.items()})
    weight = torch.rand(4, view.D, 4, 6, requires_grad=True)
    x = torch.randn(4, 4, 4, 6, requires_grad=True)
    pixels = torch.zeros(2, 2 * 24, view.D), torch.zeros(2, 2 * 24, 4)
    for part, one in zip(pixels, (weight, x), strict=True):
        part += one.detach().unflatten(0, (2, 2)).permute(0, 1, 3, 4, 2).flatten(1, 3)
    expected = view.splat(*pixels, view.cells(cameras))
    found = pooling.ways(view, cameras)
    upstream, gradients = torch.randn_like(expected), {}
    for name, way in found.items():
        got = way(weight, x)
        torch.testing.assert_close(got, expected, rtol=1e-4, atol=1e-5, msg=name)
        if name not in pooling.FORWARD_ONLY:
            gradients[name] = torch.autograd.grad(got, (weight, x), upstream)
    for name, both in gradients.items():
        for one, other in zip(both, gradients[pooling.OURS], strict=True):
            torch.testing.assert_close(one, other, rtol=1e-4, atol=1e-4, msg=name)
    assert next(iter(found)) == pooling.REFERENCE


def test_runs_of_sparse_trainings_are_compared_from_the_same_seeds(bench):
    svite = bench("svite")
    scores = {"static 50 %": (50.0, 52.0, 51.0), "SViTE 50 %": (53.0, 54.0, 55.0)}
    runs = [
        {"kind": kind, "seed": seed, "top1": top1, "alive": 0.5}
        for kind, found in scores.items()
        for seed, top1 in enumerate(found)
    ]
    rows = svite.table([*runs, {"kind": "dense", "seed": 0, "top1": 60.0, "alive": 1.0}])
    # half an interval is 4.303 standard errors
    assert rows["SViTE 50 %"]["top1"] == [54.0, 2.48]
    assert rows["SViTE 50 %"]["above_static"] == [3.0, 2.48]
    assert rows["dense"]["top1"] == [60.0, None]
    assert rows["static 50 %"]["above_static"] == [0.0, 0.0]
