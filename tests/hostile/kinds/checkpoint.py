"""Checkpoints: pickles that call functions, damaged files, and tensors of every kind."""

from __future__ import annotations

import functools
import io
import json
import os
import pickle
import pickletools
import random
import struct
import zipfile
from collections.abc import Callable
from pathlib import Path
from typing import Any

from hostile import mutate
from hostile.case import FOUND, MAYBE, MISTAKE, Case, Place

GOOD = "ws/adapt/run-001/iter_4.pth"
EVALUATE = ("evaluate", "tiny.py", "{file}", "--workspace", "ws", "--eval-images", "1")
PHASES: dict[str, tuple[str, ...]] = {
    "evaluate": EVALUATE,
    "adapt": ("adapt", "tiny.py", "{file}", "--workspace", "ws", "--set", "train_cfg.max_iters=1"),
    "pretrain": (
        *("pretrain", "tiny.py", "{file}", "--workspace", "ws", "--force"),
        *("--set", "train_cfg.max_iters=1"),
    ),
    "finetune": (
        *("finetune", "tiny.py", "{file}", "--workspace", "ws", "--force"),
        *("--sparsity", "ws/best.yaml", "--set", "train_cfg.max_iters=1"),
    ),
    "search": (
        *("search", "tiny.py", "{file}", "--workspace", "ws", "--min", "0", "--max", "10000"),
        *("--trials", "2", "--population", "2", "--parents", "2", "--latency-seconds", "0.01"),
    ),
    "sensitivity": (
        *("sensitivity", "tiny.py", "{file}", "--workspace", "ws", "--eval-images", "1"),
        *("--latency-seconds", "0.01"),
    ),
    "load_from": (
        *("pretrain", "tiny.py", "--workspace", "ws", "--force", "--set", "load_from={file}"),
        *("--set", "train_cfg.max_iters=1"),
    ),
    "init_cfg": (
        *("pretrain", "tiny.py", "--workspace", "ws", "--force", "--set"),
        *("model.init_cfg={'type':'Pretrained','checkpoint':'{file}'}",),
        *("--set", "train_cfg.max_iters=1"),
    ),
}


@functools.cache
def _good(path: str) -> Any:
    import torch

    from sparsevit.engine.safe_load import weights_only

    with weights_only():
        return torch.load(path, weights_only=True)


def good(place: Place) -> dict[str, Any]:
    """A checkpoint of the fixture; a new mapping around the same tensors."""
    held = _good(str(place.fixture / GOOD))
    return {**held, "state_dict": dict(held["state_dict"]), "meta": dict(held["meta"])}


def catalogue() -> list[Case]:
    cases = []
    add = cases.append
    for name, call in payloads().items():
        for form in ("zip", "legacy", "plain"):
            where = ("whole", "in state_dict", "in meta")[len(cases) % 3]
            protocol = (2, 0, 4, 5)[len(cases) % 4]
            phase = list(PHASES)[len(cases) % len(PHASES)]
            make = functools.partial(write_payload, call, form, where, protocol)
            add(
                _case(
                    f"{form} pickle that calls {name} ({where}, protocol {protocol})", make, phase
                )
            )
    for name, content in contents().items():
        add(_case(name, functools.partial(_write, content), "evaluate"))
    for suffix in (".pt", ".pkl", ".safetensors", ".bin", "", ".PTH", ".zip", ".json", ".onnx"):
        name = f"text named x{suffix}"
        add(_case(name, functools.partial(_write, b"hello\n" * 9), "evaluate", file=f"x{suffix}"))
    for name, change in checkpoints().items():
        codes = FOUND if any(w in name for w in ("NaN", "1e38", "infin")) else MAYBE
        if name in ("NaN everywhere", "infinite everywhere"):
            codes = frozenset({1, 2})
        certain = name.startswith("!")
        make = functools.partial(_save, change)
        add(_case(name, make, "evaluate", MISTAKE if certain else codes))
    for name in ("NaN everywhere", "infinite everywhere"):
        make = functools.partial(_save, checkpoints()[name])
        for phase in ("adapt", "search", "finetune", "sensitivity"):
            add(_case(f"{name}, {phase}", make, phase, frozenset({1, 2})))
    for name, tensor in tensors().items():
        make = functools.partial(_save, functools.partial(_with_tensor, tensor))
        add(_case(f"a tensor that is {name}", make, "evaluate", FOUND))
        add(_case(f"a tensor that is {name}, pretrain", make, "pretrain", FOUND))
    for n, (name, content) in enumerate(safetensors_files().items()):
        phase = ("evaluate", "pretrain")[n % 2]
        make = functools.partial(_write, content, "x.safetensors")
        add(_case(f"safetensors: {name}", make, phase, MAYBE, file="x.safetensors"))
    for n, (name, make) in enumerate(special_files().items()):
        phase = ("evaluate", "adapt", "load_from")[n % 3]
        add(_case(name, make, phase, file=_special_name(name)))
    for n, address in enumerate(ADDRESSES):
        for phase in ("evaluate", "load_from", "init_cfg")[n % 3 :]:
            add(_case(f"the address {address[:60]!a} ({phase})", None, phase, file=address))
    for at in (0, 1, 2, 3, 4, 10, 100, 511, 512, 513, 4096, 100_000, -1, -22, -100, -4096):
        make = functools.partial(_cut, at)
        add(_case(f"cut at {at}", make, list(PHASES)[at % 6]))
    for name in RESUMED:
        words = ("adapt", "--workspace", "ws", "--resume", "--set", "train_cfg.max_iters=5")
        add(Case(f"resuming from a checkpoint with {name}", words, RESUMED[name], FOUND))
    return cases


def mutation(rng: random.Random) -> Case:
    what = rng.choice(["bytes", "bytes", "pickle", "object", "safetensors"])
    phase = rng.choice([*list(PHASES)[:3], "load_from"])
    seed = rng.random()
    if what == "bytes":
        return _case("damaged bytes", functools.partial(_damage, seed), phase, FOUND)
    if what == "pickle":
        return _case("damaged pickle", functools.partial(_damage_pickle, seed), phase, FOUND)
    if what == "object":
        return _case("mutated object", functools.partial(_mutate_object, seed), phase, FOUND)
    make = functools.partial(_damage_safetensors, seed)
    return _case("damaged safetensors", make, phase, FOUND, file="x.safetensors")


def _case(
    name: str,
    make: Callable[[Place], object] | None,
    phase: str,
    codes: frozenset[int] = MISTAKE,
    file: str = "x.pth",
) -> Case:
    words = tuple(word.replace("{file}", file) for word in PHASES[phase])
    if phase == "load_from":
        codes |= MAYBE  # a phase starts from its CHECKPOINT, and sets this itself
    return Case(name, words, make, codes)


# --- code ----------------------------------------------------------------------------------------


class _Call:
    """Pickles as a call of a function, known by its names alone."""

    def __init__(self, module: str, name: str, *args: Any) -> None:
        self.target, self.args = (module, name), args


def payloads() -> dict[str, Callable[[Place], _Call]]:
    """What a pickle may call to run code, by name."""
    shell: dict[str, tuple[str, str]] = {
        "os.system": ("os", "system"),
        "posix.system": ("posix", "system"),
        "nt.system": ("nt", "system"),
        "os.popen": ("os", "popen"),
        "subprocess.getoutput": ("subprocess", "getoutput"),
        "subprocess.getstatusoutput": ("subprocess", "getstatusoutput"),
        "pty.spawn": ("pty", "spawn"),
        "commands.getoutput": ("commands", "getoutput"),
        "platform.popen": ("platform", "popen"),
        "torch.utils.collect_env.run": ("torch.utils.collect_env", "run"),
        "numpy.testing._private.utils.runstring": ("numpy.testing._private.utils", "runstring"),
        "mmengine.utils.dl_utils.collect_env": ("mmengine.utils", "check_install_package"),
    }
    python: dict[str, tuple[str, str]] = {
        "builtins.eval": ("builtins", "eval"),
        "builtins.exec": ("builtins", "exec"),
        "__builtin__.eval": ("__builtin__", "eval"),
        "timeit.timeit": ("timeit", "timeit"),
        "code.InteractiveInterpreter.runcode": ("code", "InteractiveInterpreter.runcode"),
        "cProfile.run": ("cProfile", "run"),
        "profile.run": ("profile", "run"),
        "pdb.run": ("pdb", "run"),
        "bdb.Bdb.run": ("bdb", "Bdb.run"),
        "doctest.debug_script": ("doctest", "debug_script"),
        "trace.Trace.run": ("trace", "Trace.run"),
        "torch.jit.unsupported_tensor_ops.execWrapper": (
            "torch.jit.unsupported_tensor_ops",
            "execWrapper",
        ),
        "torch._dynamo.guards.eval": ("torch._dynamo.guards", "eval"),
        "torch.fx.experimental.symbolic_shapes.eval": (
            "torch.fx.experimental.symbolic_shapes",
            "eval",
        ),
        "numexpr.evaluate": ("numexpr", "evaluate"),
        "logging.config.eval": ("logging.config", "eval"),
        "idlelib.pyshell.ModifiedInterpreter.runcommand": (
            "idlelib.pyshell",
            "ModifiedInterpreter.runcommand",
        ),
        "mmengine.config.Config.fromstring": ("mmengine.config", "Config.fromstring"),
    }
    calls: dict[str, Callable[[Place], _Call]] = {
        name: functools.partial(_shell_call, *target) for name, target in shell.items()
    }
    calls |= {name: functools.partial(_python_call, *target) for name, target in python.items()}
    calls |= {
        "builtins.open": lambda p: _Call("builtins", "open", str(p.canary), "w"),
        "io.open": lambda p: _Call("io", "open", str(p.canary), "w"),
        "os.mkdir": lambda p: _Call("os", "mkdir", str(p.canary)),
        "os.remove": lambda p: _Call("os", "remove", "notes.txt"),
        "shutil.rmtree": lambda p: _Call("shutil", "rmtree", "private"),
        "pathlib.Path.write_text": lambda p: _Call(
            "pathlib", "Path.write_text", str(p.canary), "x"
        ),
        "builtins.__import__": lambda p: _Call("builtins", "__import__", _planted(p)),
        "importlib.import_module": lambda p: _Call("importlib", "import_module", _planted(p)),
        "runpy.run_path": lambda p: _Call("runpy", "run_path", _planted(p) + ".py"),
        "subprocess.Popen": lambda p: _Call("subprocess", "Popen", ["touch", str(p.canary)]),
        "subprocess.run": lambda p: _Call("subprocess", "run", ["touch", str(p.canary)]),
        "os.execv": lambda p: _Call("os", "execv", "/usr/bin/touch", ["touch", str(p.canary)]),
        "os.spawnv": lambda p: _Call("os", "spawnv", 0, "/usr/bin/touch", ["x", str(p.canary)]),
        "functools.partial": lambda p: _Call(
            "functools", "partial", _Call("os", "system", p.shell)
        ),
        "functools.reduce": lambda p: _Call("functools", "reduce", print, [1, 2]),
        "operator.methodcaller": lambda p: _Call("operator", "methodcaller", "system", p.shell),
        "operator.attrgetter": lambda p: _Call("operator", "attrgetter", "system"),
        "builtins.getattr": lambda p: _Call(
            *("builtins", "getattr", _Call("importlib", "import_module", "os"), "system")
        ),
        "getattr of HistoryBuffer": _history_getattr,
        "ctypes.CDLL": lambda p: _Call("ctypes", "CDLL", "./planted.so"),
        "torch.load": lambda p: _Call("torch", "load", _nested(p)),
        "torch.hub.load": lambda p: _Call("torch.hub", "load", ".", "x", "local"),
        "torch.ops.load_library": lambda p: _Call("torch", "ops.load_library", "planted.so"),
        "torch.classes.load_library": lambda p: _Call("torch", "classes.load_library", "p.so"),
        "pickle.loads": lambda p: _Call("pickle", "loads", Path(_nested(p)).read_bytes()),
        "numpy.load": lambda p: _Call("numpy", "load", _nested(p), None, True),
        "joblib.load": lambda p: _Call("joblib", "load", _nested(p)),
        "mmengine.fileio.load": lambda p: _Call("mmengine.fileio", "load", _nested(p)),
        "mmengine.load": lambda p: _Call("mmengine", "load", _nested(p)),
        "yaml.unsafe_load": lambda p: _Call("yaml", "unsafe_load", _yaml_payload(p)),
        "os._exit": lambda p: _Call("os", "_exit", 0),
        "sys.exit": lambda p: _Call("sys", "exit", 0),
        "os.kill": lambda p: _Call("os", "kill", 0, 9),
        "time.sleep": lambda p: _Call("time", "sleep", 1e6),
        "signal.pause": lambda p: _Call("signal", "pause"),
        "builtins.input": lambda p: _Call("builtins", "input"),
        "os.putenv": lambda p: _Call("os", "putenv", "PATH", "/nowhere"),
        "socket.create_connection": lambda p: _Call("socket", "create_connection", ("::1", 9)),
        "urllib.request.urlopen": lambda p: _Call(
            "urllib.request", "urlopen", "http://127.0.0.1:9/"
        ),
        "webbrowser.open": lambda p: _Call("webbrowser", "open", "http://127.0.0.1:9/"),
        "torch.save": lambda p: _Call("torch", "save", {}, str(p.canary)),
        "torch.Tensor.tofile": lambda p: _Call("numpy", "ndarray.tofile", str(p.canary)),
        "logging.FileHandler": lambda p: _Call("logging", "FileHandler", str(p.canary)),
        "tempfile.mkdtemp": lambda p: _Call("tempfile", "mkdtemp", "", "", str(p.folder)),
        "sqlite3.connect": lambda p: _Call("sqlite3", "connect", str(p.canary)),
        "a class of its own": lambda p: _Call("__main__", "Model"),
        "torch.nn.Linear": lambda p: _Call("torch.nn.modules.linear", "Linear", 2, 2),
        "a name with an escape": lambda p: _Call("os\x1b[31m", "sys\x1b]0;x\x07tem"),
        "a name of 100,000 characters": lambda p: _Call("os" * 50_000, "system"),
    }
    return calls


def _shell_call(module: str, name: str, place: Place) -> _Call:
    return _Call(module, name, place.shell)


def _python_call(module: str, name: str, place: Place) -> _Call:
    return _Call(module, name, place.python)


def _history_getattr(place: Place) -> _Call:
    from mmengine.logging import HistoryBuffer

    return _Call("builtins", "getattr", HistoryBuffer, "__init__")


def _planted(place: Place) -> str:
    (place.folder / "planted.py").write_text(place.python + "\n", encoding="utf-8")
    return "planted"


def _nested(place: Place) -> str:
    path = place.folder / "nested.pkl"
    path.write_bytes(_dumps(_Call("os", "system", place.shell), 2))
    return str(path)


def _yaml_payload(place: Place) -> str:
    return f"!!python/object/apply:os.system [{place.shell!r}]"


def write_payload(
    call: Callable[[Place], _Call], form: str, where: str, protocol: int, place: Place
) -> None:
    """``x.pth``, which calls something when it is unpickled."""
    made = call(place)
    document: Any = made
    if where == "in state_dict":
        document = {"state_dict": {"backbone.patch_embed.projection.weight": made}}
    elif where == "in meta":
        document = {"meta": {"x": made}, "state_dict": {}}
    data = _dumps(document, protocol)
    path = place.folder / "x.pth"
    if form == "zip":
        _zip(path, data)
    elif form == "legacy":
        head = [0x1950A86A20F9469CFC6C, 1001, {"little_endian": True}]
        path.write_bytes(
            b"".join(pickle.dumps(one, 2) for one in head) + data + pickle.dumps([], 2)
        )
    else:
        path.write_bytes(data)


class _Pickler(pickle._Pickler):  # type: ignore[name-defined]
    """Writes :class:`_Call` as what it stands for, though nothing of that name need exist."""

    def save(self, obj: Any, save_persistent_id: bool = True) -> Any:
        if not isinstance(obj, _Call):
            return super().save(obj, save_persistent_id)
        module, name = obj.target
        if self.proto >= 4:
            super().save(module)
            super().save(name)
            self.write(pickle.STACK_GLOBAL)
        else:
            self.write(pickle.GLOBAL + f"{module}\n{name}\n".encode())
        super().save(tuple(obj.args))
        self.write(pickle.REDUCE)
        return None


def _dumps(document: Any, protocol: int) -> bytes:
    file = io.BytesIO()
    _Pickler(file, protocol).dump(document)
    return file.getvalue()


def _zip(path: Path, data: bytes, extra: dict[str, bytes] | None = None) -> None:
    with zipfile.ZipFile(path, "w") as archive:
        archive.writestr("x/data.pkl", data)
        archive.writestr("x/byteorder", b"little")
        archive.writestr("x/version", b"3\n")
        for name, content in (extra or {}).items():
            archive.writestr(name, content)


# --- files that are none -------------------------------------------------------------------------


def contents() -> dict[str, bytes]:
    """Files that are no checkpoint, by name."""
    deep = b"\x80\x02" + b"]" * 100_000 + b"a" * 99_999 + b"."
    tuples = b"\x80\x02)" + b"\x85" * 100_000 + b"."
    files: dict[str, bytes] = {
        "an empty file": b"",
        "one byte": b"\x80",
        "zeros": bytes(10_000),
        "ones": b"\xff" * 10_000,
        "spaces": b" " * 10_000,
        "text": b"not a checkpoint\n",
        "a web page": b"<!DOCTYPE html><html><title>Sign in</title></html>",
        "a web page in capitals": b"\n\n <HTML><BODY>quota exceeded</BODY>",
        "a Git LFS pointer": b"version https://git-lfs.github.com/spec/v1\noid sha256:00\nsize 1\n",
        "JSON": b'{"state_dict": {}}',
        "a PNG": b"\x89PNG\r\n\x1a\n" + bytes(100),
        "a program": b"\x7fELF\x02\x01\x01" + bytes(100),
        "gzip": b"\x1f\x8b\x08" + bytes(50),
        "a tar": b"x.txt" + bytes(252) + b"ustar" + bytes(1000),
        "an empty zip": b"PK\x05\x06" + bytes(18),
        "the start of a zip": b"PK\x03\x04",
        "HDF5": b"\x89HDF\r\n\x1a\n" + bytes(100),
        "NumPy": b"\x93NUMPY\x01\x00v\x00{'descr': '<f4', 'shape': (99999999999,), }" + bytes(50),
        "an escape": mutate.ESCAPE.encode() * 10,
        "a pickle of 100,000 lists in each other": deep,
        "a pickle of 100,000 tuples in each other": tuples,
        "a pickle that claims 2^60 bytes": b"\x80\x04\x8e" + struct.pack("<Q", 2**60) + b"x.",
        "a pickle that claims 2^62 characters": b"\x80\x04\x8d" + struct.pack("<Q", 2**62) + b"x.",
        "a pickle with a negative length": b"\x80\x02T\xff\xff\xff\xffx.",
        "a pickle with a huge memo": b"\x80\x02Nr\xff\xff\xff\x7f.",
        "a pickle with a missing memo": b"\x80\x02h\x09.",
        "a pickle with a frame of 2^60": b"\x80\x04\x95" + struct.pack("<Q", 2**60) + b"N.",
        "a pickle that pops nothing": b"\x80\x020000.",
        "a pickle without an end": b"\x80\x02N",
        "a pickle of protocol 255": b"\x80\xffN.",
        "a pickle of None": b"\x80\x02N.",
        "a pickle of itself": b"\x80\x02}q\x00X\x01\x00\x00\x00ah\x00s.",
        "a pickle of a long number": b"\x80\x02\x8b"
        + struct.pack("<i", 5000)
        + b"\x7f" * 5000
        + b".",
        "a text pickle of a long number": b"I" + b"9" * 20_000 + b"\n.",
        "a pickle of an extension": b"\x80\x02\x82\x01.",
        "a pickle with a persistent id": b"Px\n.",
        "a pickle with a binary persistent id": b"\x80\x02(U\x07storagetQ.",
        "a pickle with a buffer": b"\x80\x05\x97.",
        "a pickle that doubles a list 40 times": (
            b"\x80\x02]" + b"".join(b"(22l" for _ in range(40)) + b"."
        ),
        "an INST": b"(Vtouch x\nios\nsystem\n.",
        "an OBJ": b"\x80\x02(cos\nsystem\nVtouch x\no.",
        "a BUILD": b"\x80\x02ccollections\nOrderedDict\n)R}U\x08__dict__}sb.",
        "NEWOBJ of a type": b"\x80\x02cbuiltins\ntype\nU\x01x)}\x87\x81.",
        "set of a mutable": b"\x80\x04\x8f(]\x90.",
    }
    archive = io.BytesIO()
    with zipfile.ZipFile(archive, "w", zipfile.ZIP_DEFLATED) as file:
        file.writestr("x/data.pkl", bytes(200_000_000))
    files["a zip bomb"] = archive.getvalue()
    for name, members in {
        "a zip without data.pkl": {"x/version": b"3"},
        "a zip of text": {"readme.txt": b"hello"},
        "a zip with a path upwards": {"../../../evil": b"x", "x/data.pkl": b"\x80\x02}."},
        "a zip with two data.pkl": {"x/data.pkl": b"\x80\x02}.", "y/data.pkl": b"\x80\x02N."},
        "a zip with version x": {"x/data.pkl": b"\x80\x02}.", "x/version": b"x"},
        "a zip with version 999": {"x/data.pkl": b"\x80\x02}.", "x/version": b"999"},
        "a zip with a strange byteorder": {"x/data.pkl": b"\x80\x02}.", "x/byteorder": b"middle"},
        "a zip with constants, like TorchScript": {
            "x/data.pkl": b"\x80\x02}.",
            "x/constants.pkl": b"\x80\x02).",
            "x/code/__torch__.py": b"x = 1",
        },
        "a zip whose pickle is empty": {"x/data.pkl": b"", "x/version": b"3"},
    }.items():
        archive = io.BytesIO()
        with zipfile.ZipFile(archive, "w") as file:
            for member, content in members.items():
                file.writestr(member, content)
        files[name] = archive.getvalue()
    return files


ADDRESSES = (
    *("http://127.0.0.1:9/x.pth", "https://127.0.0.1:9/x.pth", "https://nowhere.invalid/x.pth"),
    *("s3://bucket/x.pth", "petrel://x", "file:///etc/passwd", "file://nowhere.pth", "ftp://x/y"),
    *("open-mmlab://resnet50", "torchvision://resnet50", "modelzoo://resnet50", "mmcls://x"),
    *("openmmlab://nothing", "local://x", "http://", "https://[::1", "data:,x", "://", "pavi://x"),
    *("x" * 300, "x/" * 3000, "a\x1b[31mb.pth", "~nobody-of-this-name/x.pth", "~/x.pth", " "),
    *("", "-", "--", "."),
    *("nowhere/x.pth", "tiny.py/x.pth", "\udcff.pth", "²", "%s%s%n", "[bold]x[/bold]", "[/]"),
    *("https://user:hunter2Zq9xK@127.0.0.1:9/x.pth",),
)  # fmt: skip


def special_files() -> dict[str, Callable[[Place], object]]:
    """Paths that are no plain file, by name."""
    return {
        "a named pipe": lambda p: os.mkfifo(p.folder / "x.pth"),
        "a named pipe .safetensors": lambda p: os.mkfifo(p.folder / "x.safetensors"),
        "a folder": lambda p: (p.folder / "x.pth").mkdir(),
        "a folder with an unreadable name": _odd_folder,
        "a link to itself": lambda p: (p.folder / "x.pth").symlink_to("x.pth"),
        "a link to nothing": lambda p: (p.folder / "x.pth").symlink_to("nowhere"),
        "a link to an endless device": lambda p: (p.folder / "x.pth").symlink_to("/dev/zero"),
        "a socket": _socket,
        "/dev/null": _nothing,
        "/dev/zero": _nothing,
        "/dev/stdin": _nothing,
        "/dev/random": _nothing,
        "/dev/full": _nothing,
        "/dev/tty": _nothing,
        "/proc/self/mem": _nothing,
        "/proc/self/environ": _nothing,
        "/proc/self/fd": _nothing,
        "/dev/fd/0": _nothing,
        "/": _nothing,
        "/etc/shadow": _nothing,
    }


def _special_name(name: str) -> str:
    if name.startswith("/"):
        return name
    return "x.safetensors" if name.endswith(".safetensors") else "x.pth"


def _nothing(place: Place) -> None:
    pass


def _odd_folder(place: Place) -> None:
    (place.folder / "x.pth").mkdir()
    os.mkdir(os.fsencode(place.folder / "x.pth") + b"/\xff\x1b[31m.pth")


def _socket(place: Place) -> None:
    import socket

    here = os.getcwd()
    os.chdir(place.folder)
    with socket.socket(socket.AF_UNIX) as one:
        one.bind("x.pth")
    os.chdir(here)


# --- checkpoints that hold strange things --------------------------------------------------------


def checkpoints() -> dict[str, Callable[[dict[str, Any]], Any]]:
    """Changes of a good checkpoint, by name; ``!`` marks what is certainly a mistake."""
    import torch

    def state(**more: Any) -> Callable[[dict[str, Any]], Any]:
        return lambda good: {**good, "state_dict": {**good["state_dict"], **more}}

    first = "backbone.patch_embed.projection.weight"
    changes: dict[str, Callable[[dict[str, Any]], Any]] = {
        "!an empty dict": lambda g: {},
        "!a list": lambda g: [g["state_dict"]],
        "!None": lambda g: None,
        "!a number": lambda g: 7,
        "!a string": lambda g: "state_dict",
        "!one tensor": lambda g: torch.zeros(3),
        "!state_dict is a list": lambda g: {**g, "state_dict": list(g["state_dict"])},
        "!state_dict is None": lambda g: {**g, "state_dict": None},
        "!state_dict is empty": lambda g: {**g, "state_dict": {}},
        "!state_dict is a number": lambda g: {**g, "state_dict": 3},
        "!state_dict holds itself": _itself,
        "!other names": lambda g: {"state_dict": {f"q{n}": torch.zeros(2) for n in range(9)}},
        "!only the head of another model": lambda g: {
            "state_dict": {"fc.weight": torch.ones(2, 2)}
        },
        "!other shapes": lambda g: {
            **g,
            "state_dict": {k: torch.zeros(5, 5) for k in g["state_dict"]},
        },
        "shapes of one wrong": state(**{first: torch.zeros(4, 4)}),
        "half of the names": lambda g: {"state_dict": dict(list(g["state_dict"].items())[::2])},
        "prefix module.": lambda g: {"state_dict": _prefixed(g, "module.")},
        "prefix module.module.": lambda g: {"state_dict": _prefixed(g, "module.module.")},
        "prefix backbone.": lambda g: {"state_dict": _prefixed(g, "backbone.")},
        "prefix with an escape": lambda g: {"state_dict": _prefixed(g, mutate.ESCAPE)},
        "state_dict alone": lambda g: g["state_dict"],
        "under model": lambda g: {"model": g["state_dict"]},
        "under state_dict twice": lambda g: {"state_dict": {"state_dict": g["state_dict"]}},
        "under student": lambda g: {"student": g["state_dict"]},
        "model is a string": lambda g: {"model": "x"},
        "a key that is a number": state() and (lambda g: _keyed(g, 5)),
        "a key that is None": lambda g: _keyed(g, None),
        "a key that is a tuple": lambda g: _keyed(g, (1, 2)),
        "a key that is bytes": lambda g: _keyed(g, b"x"),
        "a key that is empty": lambda g: _keyed(g, ""),
        "a key that is an escape": lambda g: _keyed(g, mutate.ESCAPE),
        "a key of a megabyte": lambda g: _keyed(g, "a" * 2**20),
        "a key that is a surrogate": lambda g: _keyed(g, "\udcff"),
        "a key with 10,000 dots": lambda g: _keyed(g, "backbone" + ".a" * 10_000),
        "100,000 more keys": lambda g: {
            "state_dict": {**g["state_dict"], **{f"k{n}": 0 for n in range(100_000)}}
        },
        "a value that is a number": state(**{first: 1.0}),
        "a value that is None": state(**{first: None}),
        "a value that is a string": state(**{first: "x"}),
        "a value that is a list": state(**{first: [1.0, 2.0]}),
        "a value that is a dict": state(**{first: {"a": 1}}),
        "a value that is an array": state(**{first: _array()}),
        "values that are numbers": lambda g: {"state_dict": dict.fromkeys(g["state_dict"], 1.0)},
        "values that are arrays": lambda g: {
            "state_dict": {k: v.numpy() for k, v in g["state_dict"].items()}
        },
        "NaN everywhere": lambda g: _filled(g, float("nan")),
        "infinite everywhere": lambda g: _filled(g, float("inf")),
        "zero everywhere": lambda g: _filled(g, 0.0),
        "1e38 everywhere": lambda g: _filled(g, 1e38),
        "one NaN": lambda g: _one(g, first, float("nan")),
        "one infinity": lambda g: _one(g, first, float("-inf")),
        "NaN in a bias table": lambda g: _one(
            g, next(k for k in g["state_dict"] if "bias_table" in k), float("nan")
        ),
        "double": lambda g: _as_type(g, torch.float64),
        "half": lambda g: _as_type(g, torch.float16),
        "bfloat16": lambda g: _as_type(g, torch.bfloat16),
        "integers": lambda g: _as_type(g, torch.int64),
        "bools": lambda g: _as_type(g, torch.bool),
        "complex": lambda g: _as_type(g, torch.complex64),
    }
    for name, meta in {
        "None": None,
        "a list": [1],
        "a string": "x",
        "a number": 5,
        "a tensor": torch.zeros(2),
        "deep": {"a": mutate.deep_list(400)},
        "a config with code": {"config": "import os\nos.system('touch ../CANARY')\n"},
        "a cfg with code": {"cfg": "__import__('os').system('touch ../CANARY')"},
        "classes that are numbers": {"dataset_meta": {"classes": 5}},
        "classes of another dataset": {"dataset_meta": {"classes": ["cat"] * 999}},
        "CLASSES with escapes": {"dataset_meta": {"CLASSES": [mutate.ESCAPE]}, "CLASSES": 3},
        "iter that is text": {"iter": "x", "epoch": None},
        "iter of twenty digits": {"iter": 10**20, "epoch": -1},
        "a strange version": {"mmengine_version": "\x1b[31m", "mmdet_version": "0"},
    }.items():
        changes[f"meta is {name}"] = functools.partial(_with_meta, meta)
    return changes


def tensors() -> dict[str, Callable[[Any], Any]]:
    """Kinds of tensors that weights are not."""
    import torch

    def quantised(t: Any) -> Any:
        return torch.quantize_per_tensor(t.float(), 0.1, 0, torch.qint8)

    def nested(t: Any) -> Any:
        return torch.nested.nested_tensor([t.reshape(-1)[:2], t.reshape(-1)[:3]])

    return {
        "sparse COO": lambda t: t.to_sparse(),
        "sparse CSR": lambda t: t.reshape(t.shape[0], -1).to_sparse_csr(),
        "sparse CSC": lambda t: t.reshape(t.shape[0], -1).to_sparse_csc(),
        "quantised": quantised,
        "quantised per channel": lambda t: torch.quantize_per_channel(
            t.float(), torch.ones(t.shape[0]), torch.zeros(t.shape[0]), 0, torch.qint8
        ),
        "nested": nested,
        "on the meta device": lambda t: t.to("meta"),
        "complex": lambda t: t.to(torch.complex64),
        "conjugated": lambda t: t.to(torch.complex64).conj(),
        "negated lazily": lambda t: torch.imag(t.to(torch.complex64).conj()),
        "bool": lambda t: t > 0,
        "uint8": lambda t: t.to(torch.uint8),
        "float8": lambda t: t.to(torch.float8_e4m3fn),
        "a Parameter": lambda t: torch.nn.Parameter(t),
        "a scalar": lambda t: torch.tensor(1.0),
        "empty": lambda t: torch.zeros(0),
        "of no columns": lambda t: torch.zeros(8, 0),
        "expanded to 10^12": lambda t: torch.zeros(1).expand(10**12),
        "expanded to its shape": lambda t: torch.zeros(1).expand(t.shape),
        "with one dimension more": lambda t: t[None],
        "transposed": lambda t: t.transpose(0, 1),
        "of 60 dimensions": lambda t: t.reshape(-1)[:1].reshape([1] * 60),
        "a buffer without storage": lambda t: torch.empty(0).set_(),
    }


def _with_tensor(tensor: Callable[[Any], Any], good: dict[str, Any]) -> Any:
    name = "backbone.patch_embed.projection.weight"
    return {**good, "state_dict": {**good["state_dict"], name: tensor(good["state_dict"][name])}}


def _save(change: Callable[[dict[str, Any]], Any], place: Place) -> None:
    import torch

    torch.save(change(good(place)), place.folder / "x.pth")


def _write(content: bytes, *rest: Any) -> None:
    name, place = (rest[0], rest[1]) if len(rest) == 2 else (None, rest[0])
    if name is not None:
        (place.folder / name).write_bytes(content)
        return
    for suffix in (".pth", ".pt", ".pkl", ".safetensors", ".bin", "", ".PTH", ".zip"):
        (place.folder / f"x{suffix}").write_bytes(content)
    for suffix in (".json", ".onnx"):
        (place.folder / f"x{suffix}").write_bytes(content)


def _itself(good: dict[str, Any]) -> Any:
    state: dict[str, Any] = {}
    state["state_dict"] = state
    return state


def _prefixed(good: dict[str, Any], prefix: str) -> dict[str, Any]:
    return {prefix + name: value for name, value in good["state_dict"].items()}


def _keyed(good: dict[str, Any], key: Any) -> dict[str, Any]:
    import torch

    return {**good, "state_dict": {**good["state_dict"], key: torch.zeros(1)}}


def _with_meta(meta: Any, good: dict[str, Any]) -> dict[str, Any]:
    return {**good, "meta": meta}


def _array() -> Any:
    import numpy as np

    return np.zeros((8, 3, 4, 4), np.float32)


def _filled(good: dict[str, Any], value: float) -> dict[str, Any]:
    import torch

    full = {
        k: torch.full_like(v, value) if v.is_floating_point() else v
        for k, v in good["state_dict"].items()
    }
    return {**good, "state_dict": full}


def _one(good: dict[str, Any], name: str, value: float) -> dict[str, Any]:
    changed = good["state_dict"][name].clone()
    changed.reshape(-1)[0] = value
    return {**good, "state_dict": {**good["state_dict"], name: changed}}


def _as_type(good: dict[str, Any], kind: Any) -> dict[str, Any]:
    return {**good, "state_dict": {k: v.to(kind) for k, v in good["state_dict"].items()}}


def _cut(at: int, place: Place) -> None:
    (place.folder / "x.pth").write_bytes((place.fixture / GOOD).read_bytes()[:at])


def _resumed(change: Callable[[dict[str, Any]], Any]) -> Callable[[Place], None]:
    def make(place: Place) -> None:
        import torch

        torch.save(change(good(place)), place.folder / GOOD)

    return make


RESUMED: dict[str, Callable[[Place], object]] = {
    "no optimizer": _resumed(lambda g: {k: v for k, v in g.items() if k != "optimizer"}),
    "an optimizer that is text": _resumed(lambda g: {**g, "optimizer": "x"}),
    "an optimizer of another model": _resumed(
        lambda g: {**g, "optimizer": {"state": {}, "param_groups": []}}
    ),
    "no schedule": _resumed(lambda g: {k: v for k, v in g.items() if k != "param_schedulers"}),
    "a schedule that is text": _resumed(lambda g: {**g, "param_schedulers": ["x"]}),
    "no message hub": _resumed(lambda g: {k: v for k, v in g.items() if k != "message_hub"}),
    "a message hub that is text": _resumed(lambda g: {**g, "message_hub": "x"}),
    "no meta": _resumed(lambda g: {k: v for k, v in g.items() if k != "meta"}),
    "meta without iter": _resumed(lambda g: {**g, "meta": {}}),
    "an iter that is text": _resumed(lambda g: {**g, "meta": {**g["meta"], "iter": "x"}}),
    "an iter beyond the end": _resumed(lambda g: {**g, "meta": {**g["meta"], "iter": 10**9}}),
    "a negative iter": _resumed(lambda g: {**g, "meta": {**g["meta"], "iter": -5}}),
    "a config in its meta that is code": _resumed(
        lambda g: {**g, "meta": {**g["meta"], "cfg": "import os; os.system('touch ../CANARY')"}}
    ),
    "a seed that is text": _resumed(lambda g: {**g, "meta": {**g["meta"], "seed": "x"}}),
    "a sparsity that is text": _resumed(lambda g: {**g, "sparsity": "x"}),
    "no weights": _resumed(lambda g: {k: v for k, v in g.items() if k != "state_dict"}),
    "NaN weights": _resumed(lambda g: _filled(g, float("nan"))),
    "half of its bytes": lambda p: (p.folder / GOOD).write_bytes(
        (p.fixture / GOOD).read_bytes()[:500_000]
    ),
    "nothing in it": lambda p: (p.folder / GOOD).write_bytes(b""),
    "no file": lambda p: (p.folder / GOOD).unlink(),
    "a folder in its place": lambda p: ((p.folder / GOOD).unlink(), (p.folder / GOOD).mkdir()),
    "a pointer to elsewhere": lambda p: (p.workspace / "adapt/run-001/last_checkpoint").write_text(
        "/etc/passwd"
    ),
    "a pointer that is empty": lambda p: (p.workspace / "adapt/run-001/last_checkpoint").write_text(
        ""
    ),
    "a pointer that is binary": lambda p: (
        p.workspace / "adapt/run-001/last_checkpoint"
    ).write_bytes(b"\xff\x00\x1b[31m"),
}


# --- safetensors ---------------------------------------------------------------------------------


def safetensors_files() -> dict[str, bytes]:
    """Safetensors files with something wrong, by name."""
    one = {"dtype": "F32", "shape": [2], "data_offsets": [0, 8]}
    deep = "[" * 100_000 + "]" * 100_000
    headers: dict[str, Any] = {
        "no tensors": {},
        "metadata only": {"__metadata__": {"format": "pt"}},
        "an unknown dtype": {"a": {**one, "dtype": "F33"}},
        "a dtype that is a number": {"a": {**one, "dtype": 5}},
        "a negative shape": {"a": {**one, "shape": [-2]}},
        "a shape that overflows": {"a": {**one, "shape": [2**32, 2**32, 2**32]}},
        "a shape of text": {"a": {**one, "shape": "x"}},
        "offsets beyond the end": {"a": {**one, "data_offsets": [0, 8_000_000]}},
        "offsets backwards": {"a": {**one, "data_offsets": [8, 0]}},
        "offsets that overlap": {"a": one, "b": one},
        "offsets with a hole": {"a": one, "b": {**one, "data_offsets": [12, 20]}},
        "offsets of twenty digits": {"a": {**one, "data_offsets": [0, 10**20]}},
        "no offsets": {"a": {"dtype": "F32", "shape": [2]}},
        "a list": [1],
        "a name with an escape": {mutate.ESCAPE: one},
        "a name that is empty": {"": one},
        "metadata of numbers": {"__metadata__": {"a": 5}, "a": one},
        "metadata that is a list": {"__metadata__": [], "a": one},
        "a meta that is no JSON": {"__metadata__": {"meta": "{x"}, "a": one},
        "a meta that is a list": {"__metadata__": {"meta": "[1]"}, "a": one},
        "a meta 100,000 deep": {"__metadata__": {"meta": deep}, "a": one},
        "a meta with a number of 5,000 digits": {"__metadata__": {"meta": "9" * 5000}, "a": one},
        "a tensor of no model": {"q": one},
    }
    files = {name: _safetensors(json.dumps(header).encode()) for name, header in headers.items()}
    files |= {
        "an empty file": b"",
        "eight bytes": bytes(8),
        "a header of 2^63 bytes": struct.pack("<Q", 2**63) + b"{}",
        "a header of 100 MB that is not there": struct.pack("<Q", 10**8) + b"{}",
        "a header of zero bytes": struct.pack("<Q", 0),
        "a header that is no JSON": _safetensors(b"{x"),
        "a header that is not UTF-8": _safetensors(b'{"\xff": 1}'),
        "a header 100,000 deep": _safetensors(b'{"a":' + deep.encode() + b"}"),
        "a header with doubled keys": _safetensors(
            b'{"a":' + json.dumps(one).encode() + b',"a":' + json.dumps(one).encode() + b"}"
        ),
        "a header with NaN": _safetensors(b'{"a": NaN}'),
        "text": b"hello",
        "a pickle": pickle.dumps({"state_dict": {}}, 2),
    }
    return files


def _safetensors(header: bytes, data: bytes = bytes(8)) -> bytes:
    return struct.pack("<Q", len(header)) + header + data


# --- mutations -----------------------------------------------------------------------------------


def _damage(seed: float, place: Place) -> None:
    data, _ = mutate.raw((place.fixture / GOOD).read_bytes(), random.Random(seed))
    (place.folder / "x.pth").write_bytes(data)


def _damage_pickle(seed: float, place: Place) -> None:
    """The pickle inside a good file, damaged: tensors stay where they are."""
    rng = random.Random(seed)
    with (
        zipfile.ZipFile(place.fixture / GOOD) as source,
        zipfile.ZipFile(place.folder / "x.pth", "w") as target,
    ):
        for item in source.infolist():
            data = source.read(item)
            if item.filename.endswith("data.pkl"):
                data = _other_opcodes(data, rng)
            target.writestr(item.filename, data)


def _other_opcodes(data: bytes, rng: random.Random) -> bytes:
    if rng.random() < 0.4:
        return mutate.raw(data, rng)[0]
    changed = bytearray(data)
    places = [at for _, _, at in pickletools.genops(data) if at is not None]
    codes = [ord(op.code) for op in pickletools.opcodes]
    for _ in range(rng.choice([1, 3, 20])):
        changed[rng.choice(places)] = rng.choice(codes)
    return bytes(changed)


def _mutate_object(seed: float, place: Place) -> None:
    import torch

    rng = random.Random(seed)
    held = good(place)
    held = {k: v for k, v in held.items() if k not in ("message_hub", "optimizer")}
    names = list(held["state_dict"])
    for _ in range(rng.choice([1, 3])):
        kind = rng.choice(list(tensors().values()))
        name = rng.choice(names)
        if rng.random() < 0.5:
            try:
                held["state_dict"][name] = kind(held["state_dict"][name])
            except (RuntimeError, IndexError, TypeError, ValueError, NotImplementedError):
                held["state_dict"][name] = mutate.value(rng)
        else:
            held["state_dict"][name] = mutate.value(rng)
    if rng.random() < 0.5:
        held["meta"] = mutate.document({"iter": 4, "epoch": 0, "dataset_meta": {}}, rng)[0]
    try:
        torch.save(held, place.folder / "x.pth")
    except (RuntimeError, NotImplementedError, RecursionError, UnicodeEncodeError):
        (place.folder / "x.pth").write_bytes(b"")


def _damage_safetensors(seed: float, place: Place) -> None:
    rng = random.Random(seed)
    one = {"dtype": "F32", "shape": [2], "data_offsets": [0, 8]}
    header, _ = mutate.document({"backbone.norm.weight": one, "__metadata__": {"meta": "{}"}}, rng)
    text = json.dumps(header).encode()
    data = _safetensors(text)
    (place.folder / "x.safetensors").write_bytes(data if rng.random() < 0.6 else
                                                 mutate.raw(data, rng)[0])  # fmt: skip
