"""A figure in the README or in docs/ comes from a file in benchmarks/results/."""

from __future__ import annotations

import importlib.util
import json
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[1]


@pytest.fixture(scope="module")
def tables():
    path = ROOT / "benchmarks" / "shared" / "tables.py"
    spec = importlib.util.spec_from_file_location("tables", path)
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module


@pytest.mark.parametrize(
    "page", ["README.md", "docs/backends.md", "docs/results.md", "docs/sparsify.md"]
)
def test_the_results_of_a_page_are_those_of_the_files(tables, page):
    path = ROOT / page
    assert path in tables.PAGES
    text = path.read_text()
    assert tables.REGION.search(text)
    assert tables.with_results(text, path.parent) == text


ROW = {"median_ms": 500.0, "speedup": 1.5, "gmacs": 40.0, "gemm_floor_ms": 300.0}
PART = {"median_ms": 5.0, "share": 0.5}
COMMON = {
    "command": "python benchmarks/some.py --backends eager --merge",
    "machine": {"device": "a Xeon", "threads": 2},
    "versions": {"torch": "2.13"},
    "img_size": 672,
    "batch_size": 1,
}
SIZED = {**ROW, "tokens": 28224, "ms_per_megapixel": 1107.0, "allocated_mib": 100.0}
COST = {"kept": 0.4, "median_ms": 9.0, "ms_of_dense": 0.5, "allocated_mib": 1, "memory_of_dense": 1}
LINE = {"at_none": 0.2, "slope": 0.8, "r2": 0.99}
MADE = {
    "backends": {
        "left_out": {"onnxruntime bf16": "cannot"},
        "results": {
            "openvino bf16": {
                "backend": "openvino",
                "precision": "bf16",
                "agreement": {"ours cfg2": {"most": 0.123}},
                "rows": {
                    "mmdet dense": ROW,
                    "ours dense": {**ROW, "speedup_over_eager_fp32": 2.0},
                    "ours cfg2": {**ROW, "median_ms": 123.0, "speedup_over_eager_fp32": 4.25},
                },
            }
        },
    },
    "scaling": {
        "fits": {"ours cfg2": {"exponent": 1.01, "r2": 0.9991}},
        "results": {"mmdet dense": {"672": SIZED}, "ours cfg2": {"672": SIZED}},
    },
    "adaptation": {
        "results": {"backbone": {"rows": {"random 0": COST}, "fits": {"ms": LINE, "memory": LINE}}}
    },
    "detector": {
        "results": {"mmdet dense": {**ROW, "detections": [100], "parts": {"FPN": PART}}},
        "selection": {"cfg2": {"selection_share": 0.0123}},
    },
    "segmentation": {
        "img_size": [512, 1024],
        "left_out": {},
        "results": {
            "UPerNet openvino": {
                "agreement": {},
                "rows": {
                    "mmseg eager": ROW,
                    "mmseg dense": ROW,
                    "ours cfg2": {**ROW, "speedup": 2.25},
                },
            },
            "UPerNet parts": {"rows": {"mmseg dense": {**ROW, "parts": {"pyramid pooling": PART}}}},
        },
    },
    "bev": {
        "img_size": [256, 704],
        "cameras": 6,
        "left_out": {"BEVDet compile": "no compiler"},
        "results": {
            "backbone eager": {
                "agreement": {},
                "rows": {"mmdet eager": ROW, "mmdet dense": ROW, "ours cfg2": ROW},
            },
            "BEVDet parts": {"rows": {"mmdet dense": {**ROW, "parts": {"head": PART}}}},
        },
    },
    "sparsify": {
        "results": {
            "a/model": {
                "img_size": 672,
                "share_fixed": 0.42,
                "rows": {"dense": ROW, "ours dense": ROW, "ours 60%": {**ROW, "speedup": 2.5}},
            }
        }
    },
}
MADE["backends_kept_memory"] = MADE["backends"]
SAYS = {
    "backends_kept_memory": ["| `openvino` bf16 | 500 | - | **500 (1.50x)** | **123 (1.50x)** |"],
    "backends": ["| **123 (1.50x)** | - |", "4.25x", "300 / 300 / -", "12.3%", "onnxruntime bf16"],
    "scaling": ["500 ms, 1107/Mpx, 100 MiB", "| 1.01 | 0.9991 |", "images/scaling.png"],
    "adaptation": ["| backbone | random 0 | 40% | 9 | 50% |", "0.20 + 0.80 x kept"],
    "sparsify": ["| a/model | 672x672 | 500 |", "**500 (2.50x)** | 42% |"],
    "segmentation": [
        "| UPerNet openvino | 500 (1.50x) | 500 (2.25x) |",
        "1024x512, fp32",
        "| pyramid pooling | 5.0 (50.0%) |",
    ],
    "bev": ["6 cameras, 704x256, fp32", "| head | 5.0 (50.0%) |", "BEVDet compile (no compiler)"],
    "detector": ["| FPN | 5.0 (50.0%) |", "1.23% at cfg2", "100 objects"],
}


@pytest.mark.parametrize("name", MADE)
def test_a_table_says_what_the_file_does(tables, name, tmp_path, monkeypatch):
    (tmp_path / f"{name}.json").write_text(json.dumps({**COMMON, **MADE[name]}))
    monkeypatch.setattr(tables, "RESULTS", tmp_path)
    page = f"before\n<!-- results {name} -->\nold\n<!-- /results -->\nafter\n"
    made = tables.with_results(page, ROOT / "docs")
    assert made.startswith(f"before\n<!-- results {name} -->\n**")
    assert made.endswith("<!-- /results -->\nafter\n")
    assert "old" not in made
    assert f"](../benchmarks/results/{name}.json)" in made
    for words in SAYS[name]:
        assert words in made
    assert tables.with_results(made, ROOT / "docs") == made


def test_a_table_without_results_says_how_to_make_them(tables, tmp_path, monkeypatch):
    monkeypatch.setattr(tables, "RESULTS", tmp_path)
    assert "python benchmarks/scaling.py" in tables.table("scaling")


@pytest.mark.parametrize("name", ["backends", "scaling", "adaptation"])
def test_a_plot_is_drawn_from_the_file(name, tmp_path):
    spec = importlib.util.spec_from_file_location(
        "plots", ROOT / "benchmarks" / "shared" / "plots.py"
    )
    plots = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(plots)
    found = json.loads(json.dumps(MADE[name]))
    for line in found.get("fits", {}).values():
        line.update(intercept_ms=3.0, ms_per_thousand_tokens=0.5)
    plots.PLOTS[name](found, tmp_path / "plot.png")
    assert (tmp_path / "plot.png").read_bytes().startswith(b"\x89PNG")


@pytest.mark.parametrize(
    "path", sorted((ROOT / "benchmarks" / "results").glob("*.json")), ids=lambda p: p.stem
)
def test_every_result_names_its_machine_versions_and_command(path):
    result = json.loads(path.read_text())
    assert result["machine"]["cores"]
    assert result["versions"]["torch"]
    assert result["command"].startswith("python benchmarks/")
