"""Which ops are taken, in interpreters of their own where what is installed has to differ."""

import importlib
import json
import os
import subprocess
import sys
import textwrap

import pytest
import torch

from sparsevit.errors import UserError
from sparsevit.ops import mmcv_ext
from sparsevit.ops.mmcv_ext.module import ExtModule

TORCHVISION = """
import torch
def nms(boxes, scores, iou_threshold):
    return torch.zeros(1, dtype=torch.int64)
def roi_align(input, boxes, output_size, spatial_scale, sampling_ratio, aligned):
    return torch.ones(len(boxes), input.size(1), *output_size)
"""


@pytest.fixture
def world(tmp_path):
    """Writes fake packages and runs a program that finds them first; returns what it prints."""

    def run(program, files, ops=None):
        for name, text in files.items():
            path = tmp_path / name
            path.parent.mkdir(parents=True, exist_ok=True)
            path.write_text(textwrap.dedent(text))
        environment = {k: v for k, v in os.environ.items() if k != "SPARSEVIT_OPS"}
        environment |= {"PYTHONPATH": str(tmp_path), "OMP_NUM_THREADS": "1"}
        environment |= {"SPARSEVIT_OPS": ops} if ops else {}
        result = subprocess.run(
            [sys.executable, "-c", textwrap.dedent(program)],
            env=environment,
            capture_output=True,
            text=True,
            timeout=120,
        )
        assert result.returncode == 0, result.stderr
        return json.loads(result.stdout.splitlines()[-1])

    return run


INSTALL = """
    import json, sys
    from sparsevit.errors import UserError
    from sparsevit.ops import mmcv_ext
    try:
        chosen = [mmcv_ext.install(), mmcv_ext.install(), mmcv_ext.backend()]
    except UserError as error:
        chosen = str(error)
    import mmcv
    print(json.dumps({
        "chosen": chosen,
        "origin": vars(sys.modules.get("mmcv._ext", sys)).get("ORIGIN", "sparsevit"),
        "attached": getattr(mmcv, "_ext", None) is sys.modules.get("mmcv._ext"),
        "torch": "torch" in sys.modules,
    }))
"""
COMPILED = {"mmcv/__init__.py": "", "mmcv/_ext.py": "ORIGIN = 'compiled'"}
BARE = {"mmcv/__init__.py": ""}
WORKING = {"torchvision/__init__.py": "", "torchvision/ops.py": TORCHVISION}


def test_compiled_mmcv_comes_before_torchvision_and_is_left_alone(world):
    seen = world(INSTALL, COMPILED | WORKING)
    assert seen["chosen"] == ["mmcv"] * 3
    assert seen["origin"] == "compiled"
    assert not seen["torch"], "nothing of ours is needed there"


def test_torchvision_comes_before_pytorch(world):
    seen = world(INSTALL, BARE | WORKING)
    assert seen["chosen"] == ["torchvision"] * 3
    assert seen["origin"] == "sparsevit"
    assert seen["attached"]


@pytest.mark.parametrize(
    "failure",
    ["raise RuntimeError('operator torchvision::nms does not exist')", "import libcudart_missing"],
)
def test_pytorch_is_taken_where_torchvision_does_not_load(world, failure):
    program = INSTALL + "    print(json.dumps([mmcv_ext.install(), mmcv_ext.unavailable()]))\n"
    chosen, reasons = world(program, BARE | {"torchvision/__init__.py": failure})
    assert chosen == "pytorch"
    assert set(reasons) == {"mmcv", "torchvision"}
    assert "nms does not exist" in str(reasons) or "libcudart_missing" in str(reasons)


def test_an_mmcv_built_for_another_torch_is_passed_over(world):
    broken = {"mmcv/__init__.py": "", "mmcv/_ext.py": "raise ImportError('undefined symbol: _ZN2')"}
    program = INSTALL + "    print(json.dumps([mmcv_ext.install(), mmcv_ext.backend()]))\n"
    assert world(program, broken | WORKING) == ["torchvision", "torchvision"]


def test_the_variable_decides_against_what_is_there(world):
    seen = world(INSTALL, COMPILED | WORKING, ops="pytorch")
    assert seen["chosen"] == ["pytorch"] * 3
    assert seen["origin"] == "sparsevit"


def test_a_wanted_backend_that_is_not_there_is_refused_with_the_reason(world):
    seen = world(INSTALL, BARE, ops="mmcv")
    assert "SPARSEVIT_OPS=mmcv" in seen["chosen"]
    assert "built without its ops" in seen["chosen"]


def test_a_value_that_is_no_backend_is_refused(monkeypatch):
    monkeypatch.setenv("SPARSEVIT_OPS", "tensorrt")
    with pytest.raises(UserError, match="auto, mmcv, torchvision, pytorch"):
        mmcv_ext.install()


def test_the_choice_cannot_change_once_mmcv_ops_uses_it(monkeypatch):
    in_use = mmcv_ext.install()
    importlib.import_module("mmcv.ops")
    other = next(name for name in mmcv_ext.BACKENDS if name != in_use)
    monkeypatch.setenv("SPARSEVIT_OPS", other)
    with pytest.raises(UserError, match="already been imported"):
        mmcv_ext.install()


def test_a_bare_mmcv_works_after_its_ops_failed_to_import(world):
    seen = world(
        """
        import importlib.util, json, pkgutil, sys, warnings
        # as in an environment whose Python did not read sparsevit_mmcv_ext.pth
        sys.meta_path[:] = [f for f in sys.meta_path if type(f).__name__ != "ExtFinder"]
        import mmcv
        try:
            import mmcv.ops
            failed = False
        except ModuleNotFoundError:
            failed = True
        from sparsevit.ops import mmcv_ext
        chosen = mmcv_ext.install()
        from mmcv.ops import batched_nms, nms, get_compiler_version, get_compiling_cuda_version
        from mmengine.utils.dl_utils import mmcv_full_available
        warnings.simplefilter("ignore")
        print(json.dumps({
            "failed": failed,
            "chosen": chosen,
            "spec": importlib.util.find_spec("mmcv._ext").name,
            "loader": pkgutil.find_loader("mmcv._ext") is not None
            if hasattr(pkgutil, "find_loader") else True,
            "full": mmcv_full_available(),
            "mmdet": "mmdet" in sys.modules,
            "versions": [get_compiler_version(), get_compiling_cuda_version()],
        }))
        """,
        {},
    )
    assert seen["failed"] == (seen["chosen"] != "mmcv")
    assert seen["spec"] == "mmcv._ext"
    assert seen["loader"]
    assert seen["full"]
    assert not seen["mmdet"]
    assert all(seen["versions"])


@pytest.fixture
def stand_in():
    return ExtModule("pytorch", mmcv_ext.supplied("pytorch"))


def test_a_missing_op_resolves_and_says_how_to_get_it_when_called(stand_in):
    missing = stand_in.deform_conv_forward
    with pytest.raises(RuntimeError) as caught:
        missing(torch.ones(1), stride=1)
    assert isinstance(caught.value, UserError)
    assert "'deform_conv_forward'" in str(caught.value)
    assert "pip install" in caught.value.remedy


def test_a_layer_without_its_op_says_which_one_it_needs(stand_in, monkeypatch):
    mmcv_ext.install()
    deform_conv = importlib.import_module("mmcv.ops.deform_conv")
    monkeypatch.setattr(deform_conv, "ext_module", stand_in)
    layer = deform_conv.DeformConv2d(1, 1, 3)
    with pytest.raises(mmcv_ext.MissingOpError, match="deform_conv_forward"):
        layer(torch.ones(1, 1, 5, 5), torch.zeros(1, 18, 3, 3))


@pytest.mark.parametrize("name", ["__wrapped__", "__path__", "_private"])
def test_names_that_no_op_has_do_not_resolve(stand_in, name):
    assert not hasattr(stand_in, name)


def test_describe_names_an_implementation_for_every_op():
    described = mmcv_ext.describe()
    assert {"nms", "softnms", "roi_align_forward", "ms_deform_attn_backward"} <= set(described)
    assert all(described.values())


def test_torchvision_ops_get_the_arguments_that_mean_the_same(world):
    seen = world(
        """
        import json, torch
        from sparsevit.ops import mmcv_ext
        mmcv_ext.install()
        import mmcv, torchvision
        ext, boxes = mmcv._ext, torch.tensor([[0., 0, 2, 2], [5, 5, 8, 8]])
        one = ext.nms(boxes=boxes.half(), scores=torch.ones(2), iou_threshold=0.3, offset=0)
        two = ext.nms(boxes=boxes, scores=torch.ones(2), iou_threshold=0.3, offset=1)
        outputs = []
        for mode in (1, 0):
            output, at = torch.zeros(1, 3, 2, 2), torch.zeros(1, 3, 2, 2)
            ext.roi_align_forward(
                torch.full((1, 3, 8, 8), 5.0), torch.tensor([[0., 1, 1, 5, 5]]), output, at, at,
                aligned_height=2, aligned_width=2, spatial_scale=0.5, sampling_ratio=0,
                pool_mode=mode, aligned=True)
            outputs.append(output.unique().tolist())
        grad = torch.zeros(1, 3, 8, 8)
        ext.roi_align_backward(
            torch.ones(1, 3, 2, 2), torch.tensor([[0., 1, 1, 5, 5]]), at, at, grad,
            aligned_height=2, aligned_width=2, spatial_scale=0.5, sampling_ratio=0,
            pool_mode=1, aligned=True)
        print(json.dumps([one.tolist(), two.tolist(), torchvision.ops.CALLS[-2:], outputs,
                          grad.sum().item(), mmcv_ext.describe()["nms"]]))
        """,
        BARE
        | {
            "torchvision/__init__.py": "from torchvision import ops",
            "torchvision/ops.py": """
            import torch
            CALLS = []
            def nms(boxes, scores, iou_threshold):
                CALLS.append(["nms", str(boxes.dtype), iou_threshold])
                return torch.zeros(1, dtype=torch.int64)
            def roi_align(input, boxes, output_size, spatial_scale, sampling_ratio, aligned):
                CALLS.append(["roi_align", list(output_size), spatial_scale, aligned])
                return torch.ones(len(boxes), input.size(1), *output_size)
            """,
        },
    )
    threshold = torch.tensor(0.3).item()
    assert seen[0] == [0]
    assert seen[1] == [0, 1], "an offset is for the PyTorch code"
    assert seen[2] == [["nms", "torch.float32", threshold], ["roi_align", [2, 2], 0.5, True]]
    assert seen[3] == [[1.0], [5.0]], "the largest sample is for the PyTorch code"
    assert seen[4] == pytest.approx(12.0)
    assert seen[5].startswith("torchvision")
