"""An execution says what is executed, as plain data too, and refuses what cannot be."""

from __future__ import annotations

from dataclasses import dataclass, field, replace

import pytest
import torch

from sparsevit.cli.console import to_plain
from sparsevit.errors import UserError
from sparsevit.latency.execution import FLAT, Execution

KEYS = ["scope", "backend", "img_size", "batch_size", "precision", "device"]


def test_as_plain_data_it_has_the_keys_of_records():
    plain = Execution(img_size=(224, 448), batch_size=1).to_dict()
    assert list(plain) == KEYS
    assert plain["img_size"] == [224, 448]
    assert plain["device"] == "cpu"


def test_in_a_results_json_its_keys_stand_among_the_results():
    @dataclass
    class Result:
        name: str
        execution: Execution = field(metadata=FLAT)

    execution = Execution(device=torch.device("cuda", 1))
    assert to_plain(Result("a", execution)) == {"name": "a", **execution.to_dict()}


def test_what_can_be_executed_is_given_back():
    execution = Execution("detector", img_size=(32, 64), batch_size=1)
    assert execution.require() is execution
    assert execution.whole
    assert not replace(execution, scope="backbone").whole


@pytest.mark.parametrize(
    ("wrong", "says"),
    [
        ({"scope": "neck"}, "backbone, detector"),
        ({"backend": "tflite"}, "eager, compile, onnxruntime"),
        ({"scope": "detector", "backend": "tensorrt"}, "--scope backbone"),
        ({"precision": "int8"}, "fp32, fp16, bf16"),
        ({"batch_size": 0}, "at least one image"),
        ({"img_size": (16, 224)}, "224x16"),
    ],
)
def test_what_cannot_be_executed_says_what_can(wrong, says):
    with pytest.raises(UserError, match=says):
        Execution(**wrong).require()
