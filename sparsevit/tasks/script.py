"""The script beside an exported file: Python that runs it with its runtime alone, to be copied.

It is put together from parts: how a file is loaded and run, by format; how an image becomes its
input (:mod:`sparsevit.engine.preparation`); what its outputs say, by task. Values of a config are
written as literals at its top, and nowhere else.
"""

from __future__ import annotations

import sys
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from pprint import pformat
from typing import Any

_LINE = 96
_PATHS = "from pathlib import Path"


class NoScript(Exception):
    """Why there can be no script: a sentence without its full stop."""


@dataclass(frozen=True)
class Part:
    """A part of a script.

    Attributes:
        code: functions. Nothing of a config, and no name of a file, may stand in it.
        imports: lines.
        constants: name -> value of plain data, to stand at the top.
        needs: packages to install.
    """

    code: str
    imports: tuple[str, ...] = ()
    constants: Mapping[str, Any] = field(default_factory=dict)
    needs: tuple[str, ...] = ()


@dataclass(frozen=True)
class Finding(Part):
    """The part of a task: ``find(run, image)`` and ``show(image, found)``, for a :func:`main`.

    Attributes:
        what: that is found, such as ``the objects in an image``.
        main: what the script does when it is run.
        crops: whether an image may lose its edges while it is prepared.
    """

    what: str = ""
    main: str = ""
    crops: bool = False


def class_list(classes: Sequence[Any] | None, count: int) -> list[str]:
    """Names of so many classes: their numbers where there are no such names."""
    if not classes or len(classes) != count:
        return [str(number) for number in range(count)]
    return [str(name) for name in classes]


def script_text(format: str, file: str, prepares: Part, finds: Finding) -> str:
    """A script that runs a file.

    Args:
        format: name of its format.
        file: its name, in the folder of the script.
        prepares: ``prepare(image)``.
        finds: what its outputs say.

    Raises:
        NoScript: files of this format are not run by scripts.
    """
    if format not in _RUNNING:
        raise NoScript(f"a file of the format {format} has none")
    parts = (_COMMON, prepares, _RUNNING[format], finds)
    imports = {line for part in parts for line in part.imports} | {_PATHS, "import sys"}
    ours = [line for line in imports if line.split()[1] not in sys.stdlib_module_names]
    groups = (imports - set(ours), ours)
    needs = ", ".join(dict.fromkeys(name for part in parts for name in part.needs))
    literals = [_constant(name, value) for part in parts for name, value in part.constants.items()]
    top = [
        f'"""Finds {finds.what}, with nothing of sparsevit: yours to change.\n\n'
        f'Needs {needs}.\n"""',
        "\n\n".join("\n".join(sorted(group, key=_import_order)) for group in groups),
        "\n".join([f"MODEL = Path(__file__).with_name({file!r})", *literals]),
    ]
    return (
        "\n\n".join(top)
        + "".join(
            f"\n\n\n{code.strip()}"
            for code in (*(part.code for part in parts), finds.main or drawing(), _BEGIN)
        )
        + "\n"
    )


_SAYS = {
    "WIDTH": "of the only images that the file takes",
    "BATCH": "how often an image is given to a file that takes several",
    "FIT": "width and height to which an image is scaled, or into which",
    "EDGE": "to which the shorter side is scaled",
    "PADDING": "at the right and below, of normalised pixels",
    "LEAST_SCORE": "of what is shown",
    "MOST": "places of a map that are looked at",
}


def _constant(name: str, value: Any) -> str:
    # the value as it is read back: what a name has in it stays a string
    literal = pformat(value, width=_LINE - len(name), compact=True, sort_dicts=False)
    return f"{name} = {literal}" + (f"  # {_SAYS[name]}" if name in _SAYS else "")


WRITE = '''

def write(image: np.ndarray, text: str, place: tuple[int, int], colour: list[int]) -> None:
    """In OpenCV's font, which has ASCII alone."""
    cv2.putText(image, text.encode("ascii", "replace").decode(), place, 0, 0.5, colour)
'''
"""For the code of tasks that write names into a picture."""


def _import_order(line: str) -> tuple[bool, str]:
    return line.startswith("from"), line


_COMMON = Part(
    '''
def stop(problem: str) -> None:
    print(problem, file=sys.stderr)
    sys.exit(2)


def read(path: str) -> np.ndarray:
    """(H, W, 3) uint8, blue first."""
    try:
        image = cv2.imdecode(np.fromfile(path, np.uint8), cv2.IMREAD_COLOR)
    except (OSError, ValueError, cv2.error):
        image = None
    if image is None:
        stop(f"{path} cannot be read as an image.")
    return image
''',
    imports=("import cv2", "import numpy as np"),
    needs=("numpy", "opencv-python"),
)

_CHECKED = """
def main() -> None:
    if len(sys.argv) != 2:
        stop(f"usage: python {Path(__file__).name} GIVEN")
    if not MODEL.exists():
        stop(f"{MODEL} is missing: it belongs beside this script.")
"""

_DRAWING = """    given = READ(sys.argv[1])
    found = find(load(), given)
    picture = Path(sys.argv[1]).stem + "_found.png"
    if not cv2.imwrite(picture, show(given, found)):
        stop(f"{picture} cannot be written.")
    print(f"drawn in {picture}")
"""


def drawing(read: str = "read", given: str = "IMAGE") -> str:
    """What a script does whose task draws.

    Args:
        read: its function that reads what is given.
        given: what that is, as its usage calls it.
    """
    return (_CHECKED + _DRAWING).replace("GIVEN", given).replace("READ", read)


_BEGIN = """
if __name__ == "__main__":
    main()
"""

# --- by format ------------------------------------------------------------------------------------

_RUNNING = {
    "onnx": Part(
        '''
def load():
    """What runs the model: arrays in, arrays out."""
    session = onnxruntime.InferenceSession(str(MODEL), providers=["CPUExecutionProvider"])
    names = [one.name for one in session.get_inputs()]
    return lambda *inputs: session.run(None, dict(zip(names, inputs)))
''',
        imports=("import onnxruntime",),
        needs=("onnxruntime",),
    ),
    "openvino": Part(
        '''
def load():
    """What runs the model: arrays in, arrays out. Left to itself OpenVINO would take bf16."""
    if not MODEL.with_suffix(".bin").exists():
        stop(f"{MODEL.with_suffix('.bin')} is missing: it belongs beside {MODEL.name}.")
    settings = {"INFERENCE_PRECISION_HINT": "f32"}
    compiled = openvino.Core().compile_model(str(MODEL), "CPU", settings)
    return lambda *inputs: compiled(list(inputs)).to_tuple()
''',
        imports=("import openvino",),
        needs=("openvino",),
    ),
    "pt2": Part(
        '''
def load():
    """What runs the model: arrays in, arrays out."""
    package = torch._inductor.aoti_load_package(str(MODEL))

    def run(*inputs):
        with torch.no_grad():
            outputs = package(*map(torch.from_numpy, inputs))
        # one output comes bare
        outputs = [outputs] if isinstance(outputs, torch.Tensor) else outputs
        return [one.numpy() for one in outputs]

    return run
''',
        imports=("import torch", "import torch._inductor"),
        needs=("torch",),
    ),
    "tensorrt": Part(
        '''
def load():
    """What runs the model: arrays in, arrays out. PyTorch is there for the GPU's memory."""
    runtime = tensorrt.Runtime(tensorrt.Logger(tensorrt.Logger.ERROR))
    engine = runtime.deserialize_cuda_engine(MODEL.read_bytes())
    if engine is None:
        stop(f"{MODEL} was built for another GPU or another version of TensorRT.")
    context = engine.create_execution_context()
    names = [engine.get_tensor_name(index) for index in range(engine.num_io_tensors)]
    modes = {name: engine.get_tensor_mode(name) for name in names}
    inputs = [name for name in names if modes[name] == tensorrt.TensorIOMode.INPUT]
    tensors = {
        name: torch.empty(tuple(engine.get_tensor_shape(name)), device="cuda") for name in names
    }

    def run(*arrays):
        for name, array in zip(inputs, arrays):
            tensors[name].copy_(torch.from_numpy(array))
        for name, tensor in tensors.items():
            context.set_tensor_address(name, tensor.data_ptr())
        context.execute_async_v3(torch.cuda.current_stream().cuda_stream)
        return [tensors[name].cpu().numpy() for name in names if name not in inputs]

    run.runtime = runtime  # which must outlive the engine
    return run
''',
        imports=("import tensorrt", "import torch"),
        needs=("tensorrt", "torch"),
    ),
}

# --- of a backbone, which all tasks have ----------------------------------------------------------


def backbone_finding(outputs: Sequence[str]) -> Finding:
    """That of a backbone: the shapes of its feature maps.

    Args:
        outputs: their names, in order.
    """
    return Finding(
        '''
def find(run, image: np.ndarray) -> dict[str, np.ndarray]:
    """Feature maps (BATCH, C, H, W) by name."""
    pixels, _ = prepare(image)
    return dict(zip(OUTPUTS, run(np.repeat(pixels[None], BATCH, axis=0))))


def show(found: dict[str, np.ndarray]) -> None:
    for name, features in found.items():
        print(f"{name}  {features.shape}")
''',
        constants={"OUTPUTS": list(outputs)},
        what="the feature maps of an image",
        main=_CHECKED.replace("GIVEN", "IMAGE") + "    show(find(load(), read(sys.argv[1])))\n",
        crops=True,
    )
