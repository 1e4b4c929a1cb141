"""What stands in a script is what was meant to: names in it are strings, whatever is in them."""

from __future__ import annotations

import ast
from types import SimpleNamespace

import pytest
from hypothesis import example, given
from hypothesis import strategies as st

from sparsevit.tasks.detection.script import finding as detector
from sparsevit.tasks.script import NoScript, Part, backbone_finding, class_list, script_text

NASTY = (
    '"""\nimport os; os.abort()\n"""',
    "'); import os; os.abort(); ('",
    "{__import__('os').abort()}",
    "%s {0} {name!r}",
    "back\\slash \\N{BULLET} \\",
    "line\nbreak\r\n\ttab \x00 \x1b[31m \u2028 \x85 \x0c",
    "# -*- coding: rot13 -*-",
    "\ud800 alone, \udcff of a file",
    "\u202e turned \U0001f600 круг",
    "a name that is longer than a line " * 8,
    "",
)
PREPARES = Part("def prepare(image):\n    pass", constants={"WIDTH": 8, "HEIGHT": 8, "BATCH": 1})
ROI = SimpleNamespace(with_mask=True, test_cfg={})


def text_of(classes, file="model.onnx"):
    described = {"classes": classes, "num_classes": len(classes)}
    finds = detector(SimpleNamespace(roi_head=ROI), described)
    return script_text("onnx", file, PREPARES, finds)


def values(text):
    """The constants of a script by name, read and not run; and its syntax tree without them."""
    tree = ast.parse(text.encode("utf-8"))
    found = {}
    for node in list(tree.body):
        if isinstance(node, ast.Assign) and node.targets[0].id.isupper():
            if node.targets[0].id not in ("MODEL", "COLOURS"):
                found[node.targets[0].id] = ast.literal_eval(node.value)
                tree.body.remove(node)
            elif node.targets[0].id == "MODEL":
                found["MODEL"] = ast.literal_eval(node.value.args[0])
                node.value.args = []
    return found, ast.dump(tree)


PLAIN = values(text_of(["plain"]))[1]


@given(
    st.lists(st.text(st.characters()) | st.sampled_from(NASTY), min_size=1, max_size=30),
    st.text(st.characters(), min_size=1),
)
@example(list(NASTY), NASTY[0] + ".onnx")
@example(list(NASTY), NASTY[1] + ".onnx")
def test_names_are_literals_and_nothing_else_changes(classes, file):
    found, rest = values(text_of(classes, file))
    assert found["CLASSES"] == classes
    assert found["MODEL"] == file
    assert rest == PLAIN


def test_a_script_full_of_nasty_names_runs(tmp_path):
    import scripts

    script = tmp_path / "nasty_onnx.py"
    script.write_text(text_of(list(NASTY), NASTY[1]), encoding="utf-8")
    ran = scripts.run_script(script, find=False)
    assert (ran.code, ran.err) == (2, "usage: python nasty_onnx.py IMAGE\n")
    # what it draws and prints of them: nothing that a terminal would obey
    show = f"""
import numpy as np
mask = np.ones((30, 40), bool)
found = [
    dict(score=np.float32(0.5), label=np.int64(i), box=np.float32([1, 2, 20, 20.5]), mask=mask)
    for i in range({len(NASTY)})
]
show(np.zeros((30, 40, 3), np.uint8), found)
"""
    text = script.read_text(encoding="utf-8")
    script.write_text(text.replace("    main()\n", "    pass\n") + show, encoding="utf-8")
    ran = scripts.run_script(script, find=False)
    assert ran.code == 0, ran.err
    assert len(ran.out.splitlines()) == len(NASTY)
    assert all(line.isprintable() for line in ran.out.splitlines())


def test_classes_without_as_many_names_are_numbered():
    assert class_list(None, 2) == class_list(["one"], 2) == ["0", "1"]
    assert class_list([1, None], 2) == ["1", "None"]


def test_only_formats_that_it_can_run_have_a_script():
    for name in ("onnx", "openvino", "pt2", "tensorrt"):
        ast.parse(script_text(name, "m", PREPARES, backbone_finding(["stage0"])))
    with pytest.raises(NoScript, match="format tflite"):
        script_text("tflite", "m", PREPARES, backbone_finding(["stage0"]))
