"""The scripts of benchmarks/ at sizes at which no figure means a thing: they run, and say all."""

from __future__ import annotations

import io
import json
import os
import subprocess
import sys
import zipfile
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

# detectors of full width: long where a machine is shared
pytestmark = pytest.mark.timeout(900)

BENCHMARKS = Path(__file__).parents[2] / "benchmarks"


@pytest.fixture
def run(tmp_path):
    """Run a script; returns what it wrote."""

    def run_script(name, *arguments):
        output = tmp_path / f"{name}.json"
        done = subprocess.run(
            [sys.executable, str(BENCHMARKS / f"{name}.py"), *arguments, "--output", str(output)],
            capture_output=True,
            text=True,
            timeout=800,
            check=False,
            env={**os.environ, "OMP_NUM_THREADS": "1"},
        )
        assert done.returncode == 0, done.stdout + done.stderr
        result = json.loads(output.read_text())
        assert result["machine"]["cores"]
        assert result["versions"]["torch"]
        return result

    return run_script


@pytest.mark.slow
def test_backends_are_compared_and_a_partial_run_is_merged(run):
    small = ("--img-size", "64", "--rounds", "2", "--backends", "eager")
    first = run("backends", *small, "--precisions", "fp32", "bf16")
    assert set(first["results"]) == {"eager fp32", "eager bf16"}
    for group in first["results"].values():
        assert {"mmdet eager fp32", "mmdet dense", "ours dense", "ours cfg2", "ours 60%"} <= set(
            group["rows"]
        )
        assert all(len(row["samples_ms"]) == 2 for row in group["rows"].values())
        assert group["rows"]["ours cfg2"]["gemm_floor_ms"] > 0
    assert first["results"]["eager fp32"]["agreement"]["ours cfg2"]["absolute"] < 1e-3
    second = run("backends", *small, "--precisions", "fp32", "--merge")
    assert second["results"]["eager bf16"] == first["results"]["eager bf16"]
    assert second["results"]["eager fp32"] != first["results"]["eager fp32"]


def test_models_of_other_libraries_are_timed_dense_and_sparse(run):
    models = ("timm/swin_tiny", "torchvision/swin_v2_t")
    small = ("--img-size", "64", "--rounds", "2")
    result = run("sparsify", "--models", *models, *small)
    assert {*result["results"], *result["left_out"]} == set(models)
    for found in result["results"].values():
        assert set(found["rows"]) == {"dense", "ours dense", "ours 60%"}
        assert found["largest_difference"] < 1e-5
        assert found["rows"]["ours 60%"]["gmacs"] < found["rows"]["dense"]["gmacs"]
        assert result["versions"]["timm"]
    second = run("sparsify", "--models", models[0], *small, "--merge")
    assert second["results"].get(models[1]) == result["results"].get(models[1])


@pytest.mark.slow
def test_scaling_times_each_backbone_in_a_process_of_its_own(run):
    result = run("scaling", "--sizes", "64", "96", "--rounds", "2")
    assert set(result["results"]) == {"mmdet dense", "ours dense", "ours cfg2", "ours 60%"}
    for route, rows in result["results"].items():
        assert [row["tokens"] for row in rows.values()] == [256, 576]
        assert all(row["allocated_mib"] > 0 for row in rows.values())
        assert "exponent" in result["fits"][route]


@pytest.mark.slow
def test_adaptation_sets_cost_against_the_windows_kept(run):
    result = run("adaptation", "--img-size", "64", "--rounds", "2", "--draws", "1")
    for found in result["results"].values():
        rows = found["rows"]
        assert rows["uniform 60%"]["kept"] == pytest.approx(0.4)
        assert 0 < rows["random 0"]["kept"] < 1
        assert rows["uniform 80%"]["allocated_mib"] < rows["ours dense"]["allocated_mib"]
        assert {"at_none", "slope", "r2"} == set(found["fits"]["memory"])
    assert set(result["results"]) == {"backbone", "detector"}


@pytest.mark.slow
def test_the_detector_is_split_into_parts_that_add_up(run):
    result = run("detector", "--img-size", "96", "--rounds", "2")
    detections = {tuple(row["detections"]) for row in result["results"].values()}
    assert min(min(found) for found in detections) > 0
    for row in result["results"].values():
        assert {"backbone", "FPN", "RoIAlign, boxes", "masks pasted"} <= set(row["parts"])
        assert all(part["median_ms"] > 0 for part in row["parts"].values())
    for found in result["selection"].values():
        assert {"scores and windows kept", "where they lie"} <= set(found["parts"])
        assert 0 < found["selection_share"] < 1


def test_sparsifiner_attention(run):
    result = run("sparsifiner_attention", "--tokens", "197", "--rounds", "2")
    rows = result["results"]["197"]
    assert set(rows) == {
        "dense, fused",
        *("topk 0.25", "topk 0.1", "blocks 0.25", "blocks 0.1"),
        "topk 0.1, full product masked",
    }
    assert all(row["allocated_mib"] > 0 for row in rows.values())


@pytest.mark.slow
@pytest.mark.parametrize("name", ["segmentation", "bev"])
def test_a_whole_model_of_a_task_and_its_backbone_are_timed(run, name):
    small = ("--img-size", "128x64", "--rounds", "2", "--backends", "eager")
    first = run(name, "--models", "backbone", *small)
    assert set(first["results"]) == {"backbone eager"}
    rows = first["results"]["backbone eager"]["rows"]
    assert {"ours dense", "ours cfg2", "ours 60%"} <= set(rows)
    whole = {"segmentation": "UPerNet", "bev": "BEVDet"}[name]
    second = run(name, "--models", whole, *small, "--merge")
    assert set(second["results"]) == {"backbone eager", f"{whole} eager", f"{whole} parts"}
    assert second["results"]["backbone eager"] == first["results"]["backbone eager"]


@pytest.mark.slow
@pytest.mark.parametrize("name", ["svite", "sparsifiner"])
def test_trainings_on_photographs_are_made_one_at_a_time(run, tmp_path, name):
    data, noise = tmp_path / "photographs.zip", np.random.default_rng(0)
    with zipfile.ZipFile(data, "w") as archive:
        for label in "abcde":
            for number in range(10):
                buffer = io.BytesIO()
                pixels = noise.integers(0, 255, (32, 32, 3), np.uint8)
                Image.fromarray(pixels).save(buffer, "JPEG")
                archive.writestr(f"train/{label}/{number}.jpg", buffer.getvalue())
    words = ["--data", str(data), "--workspace", str(tmp_path / "runs"), "--seeds", "0"]
    words += ["--iterations", "2", "--batch-size", "2", "--depth", "1"]
    more = ["--sparse-iterations", "2"] if name == "sparsifiner" else []
    kinds = {"svite": ["dense", "SViTE 50 %"], "sparsifiner": ["dense", "0.1", "0.1 at random"]}
    words += [*more, "--kinds", *kinds[name]]
    assert list(run(name, *words, "--most", "1")["kinds"]) == ["dense"]
    result = run(name, *words)
    assert list(result["kinds"]) == kinds[name]
    assert run(name, *words, "--table")["runs"] == result["runs"]
