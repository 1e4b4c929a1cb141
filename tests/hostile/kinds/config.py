"""Configs of mmengine's format: programs (.py) that are broken, YAML and JSON that try to run."""

from __future__ import annotations

import functools
import json
import os
import random
from collections.abc import Callable
from typing import Any

from hostile import mutate
from hostile.case import FINE, FOUND, MAYBE, MISTAKE, Case, Place
from hostile.kinds.checkpoint import special_files

CHECKPOINT = "ws/pretrain/run-001/iter_4.pth"
PYTHON = "ws/pretrain/run-001/config.py"
COMMANDS: tuple[tuple[str, ...], ...] = (
    ("evaluate", "{file}", CHECKPOINT, "--workspace", "ws", "--eval-images", "1"),
    ("pretrain", "{file}", "--workspace", "ws", "--set", "train_cfg.max_iters=1"),
    ("export-config", "{file}", "--workspace", "ws", "--sparsity", "ws/best.yaml", "-o", "out.py"),
    ("latency", "{file}", "--workspace", "ws", "--img-size", "64", "--seconds", "0.01"),
    ("adapt", "{file}", CHECKPOINT, "--workspace", "ws", "--set", "train_cfg.max_iters=1"),
)


@functools.cache
def _plain(path: str) -> Any:
    from mmengine.config import Config

    return json.loads(json.dumps(Config.fromfile(path).to_dict()))


def plain(place: Place) -> dict[str, Any]:
    """The config of a finished run, as plain data."""
    return _without_tuples(json.loads(json.dumps(_plain(str(place.fixture / PYTHON)))))


def _without_tuples(node: Any) -> Any:
    """The same config where a list cannot stand for the tuple that mmdet insists on."""
    if isinstance(node, list):
        return [_without_tuples(item) for item in node]
    if not isinstance(node, dict):
        return node
    if node.get("type") == "Resize":
        node = {"type": "Resize", "scale_factor": 1.0, "keep_ratio": True}
    return {key: _without_tuples(item) for key, item in node.items()}


def catalogue() -> list[Case]:
    cases = []
    for n in range(len(COMMANDS)):
        file = f"x.{('json', 'yaml')[n % 2]}"
        make = functools.partial(_changed, lambda cfg, place: None, file)
        cases.append(Case("a config as it is", _words(n, file), make, FINE, writes=("out.py",)))
    for name, change in runners().items():
        for suffix in ("yaml", "json"):
            n = len(cases)
            make = functools.partial(_changed, change, f"x.{suffix}")
            cases.append(Case(f"{suffix}: {name}", _words(n, f"x.{suffix}"), make, MAYBE,
                              writes=("out.py",)))  # fmt: skip
    for name, text in yaml_texts().items():
        n = len(cases)
        make = functools.partial(_text, text, "x.yaml")
        cases.append(Case(f"yaml: {name}", _words(n, "x.yaml"), make, MISTAKE, writes=("out.py",)))
    for name, text in json_texts().items():
        n = len(cases)
        make = functools.partial(_text, text, "x.json")
        cases.append(Case(f"json: {name}", _words(n, "x.json"), make, MISTAKE, writes=("out.py",)))
    for name, text in programs().items():
        n = len(cases)
        make = functools.partial(_text, text, "x.py")
        codes = MAYBE if name.startswith("?") else MISTAKE
        cases.append(Case(f"py: {name}", _words(n, "x.py"), make, codes, writes=("out.py",)))
    for name, lines in additions().items():
        n = len(cases)
        make = functools.partial(_added, lines)
        # what exports a config does not look at its data
        exported = "dataset" in name and n % len(COMMANDS) == 2
        codes = MAYBE if name.startswith("?") or exported else MISTAKE
        cases.append(Case(f"py: {name}", _words(n if "command" not in name else 0, "x.py"), make,
                          codes, writes=("out.py",)))  # fmt: skip
    for n, (name, make) in enumerate(special_files().items()):
        for suffix in ("py", "yaml", "json"):
            file = name if name.startswith("/") else f"x.{suffix}"
            moved = functools.partial(_moved, make, file)
            cases.append(Case(f"{name} as .{suffix}", _words(n, file), moved))
    for n, name in enumerate(NAMES):
        cases.append(Case(f"the name {name[:40]!a}", _words(n, name), None, MISTAKE))
    return cases


def mutation(rng: random.Random) -> Case:
    n = rng.randrange(len(COMMANDS))
    suffix = rng.choice(["yaml", "json", "json", "py"])
    seed = rng.random()
    if suffix == "py":
        make: Callable[[Place], object] = functools.partial(_damaged, seed)
    else:
        make = functools.partial(_mutated, seed, f"x.{suffix}")
    # training to a NaN is found, and is no mistake of the config
    return Case(f"{suffix} mutated", _words(n, f"x.{suffix}"), make, FOUND, writes=("out.py",))


def _words(n: int, file: str) -> tuple[str, ...]:
    return tuple(word.replace("{file}", file) for word in COMMANDS[n % len(COMMANDS)])


def _fill(text: str, place: Place) -> str:
    return text.replace("{canary}", str(place.canary))


def _text(text: str | bytes, file: str, place: Place) -> None:
    if isinstance(text, str):
        text = _fill(text, place).encode("utf-8", "surrogateescape")
    (place.folder / file).write_bytes(text)


def _changed(change: Callable[[dict[str, Any], Place], Any], file: str, place: Place) -> None:
    cfg = plain(place)
    changed = change(cfg, place)
    text = json.dumps(cfg if changed is None else changed)
    (place.folder / file).write_text(_fill(text, place), encoding="utf-8")


def _added(lines: str, place: Place) -> None:
    text = (place.fixture / "tiny.py").read_text(encoding="utf-8")
    (place.folder / "x.py").write_text(_fill(f"{text}\n{lines}\n", place), encoding="utf-8")


def _damaged(seed: float, place: Place) -> None:
    rng = random.Random(seed)
    source = rng.choice(["tiny.py", PYTHON])
    text, _ = mutate.text((place.fixture / source).read_text(encoding="utf-8"), rng)
    (place.folder / "x.py").write_bytes(text.encode("utf-8", "surrogateescape"))


def _mutated(seed: float, file: str, place: Place) -> None:
    rng = random.Random(seed)
    cfg = plain(place)
    part = rng.choice([*cfg, None])
    if part is None or not isinstance(cfg[part], (dict, list)):
        cfg, _ = mutate.document(cfg, rng)
    else:
        cfg[part], _ = mutate.document(cfg[part], rng)
    try:
        (place.folder / file).write_text(json.dumps(cfg), encoding="utf-8")
    except ValueError:
        (place.folder / file).write_text("{", encoding="utf-8")


def _moved(make: Callable[[Place], object], file: str, place: Place) -> None:
    make(place)
    for name in ("x.pth", "x.safetensors"):
        if os.path.lexists(place.folder / name) and not file.startswith("/"):
            os.rename(place.folder / name, place.folder / file)


# --- what runs code in YAML and JSON -------------------------------------------------------------

CALLS: dict[str, dict[str, Any]] = {
    "subprocess.getoutput": {"cmd": "touch {canary}"},
    "subprocess.getstatusoutput": {"cmd": "touch {canary}"},
    "subprocess.check_output": {"args": ["touch", "{canary}"]},
    "subprocess.run": {"args": ["touch", "{canary}"]},
    "subprocess.Popen": {"args": ["touch", "{canary}"]},
    "subprocess.call": {"args": "touch {canary}", "shell": True},
    "os.system": {"command": "touch {canary}"},
    "os.popen": {"cmd": "touch {canary}"},
    "os.mkdir": {"path": "{canary}"},
    "os.makedirs": {"name": "{canary}"},
    "os.mknod": {"path": "{canary}"},
    "shutil.copy": {"src": "tiny.py", "dst": "{canary}"},
    "shutil.rmtree": {"path": "private"},
    "os.remove": {"path": "notes.txt"},
    "builtins.open": {"file": "{canary}", "mode": "w"},
    "io.open": {"file": "{canary}", "mode": "w"},
    "pathlib.Path.touch": {"self": "{canary}"},
    "logging.FileHandler": {"filename": "{canary}"},
    "timeit.timeit": {"stmt": "open('{canary}', 'w')", "number": 1},
    "runpy.run_path": {"path_name": "planted.py"},
    "runpy.run_module": {"mod_name": "planted"},
    "importlib.import_module": {"name": "planted"},
    "planted.anything": {},
    "mmengine.fileio.load": {"file": "planted.pkl"},
    "mmengine.load": {"file": "planted.pkl"},
    "mmengine.Config.fromfile": {"filename": "planted.py"},
    "mmengine.dump": {"obj": "x", "file": "{canary}", "file_format": "json"},
    "mmengine.mkdir_or_exist": {"dir_name": "{canary}"},
    "mmengine.fileio.put_text": {"obj": "x", "filepath": "{canary}"},
    "pickle.Unpickler": {},
    "torch.load": {"f": "planted.pkl", "weights_only": False},
    "torch.save": {"obj": "x", "f": "{canary}"},
    "numpy.load": {"file": "planted.pkl", "allow_pickle": True},
    "numpy.save": {"file": "{canary}", "arr": [1]},
    "pandas.read_pickle": {"filepath_or_buffer": "planted.pkl"},
    "joblib.load": {"filename": "planted.pkl"},
    "yaml.unsafe_load": {"stream": "!!python/object/apply:os.system ['touch {canary}']"},
    "cProfile.run": {"statement": "open('{canary}', 'w')"},
    "doctest.testfile": {"filename": "planted.txt"},
    "ctypes.CDLL": {"name": "./planted.so"},
    "torch.hub.load": {"repo_or_dir": ".", "model": "x", "source": "local"},
    "webbrowser.open": {"url": "file://{canary}"},
    "urllib.request.urlretrieve": {"url": "file:///etc/hostname", "filename": "{canary}"},
    "sqlite3.connect": {"database": "{canary}"},
    "tarfile.open": {"name": "{canary}", "mode": "w"},
    "zipfile.ZipFile": {"file": "{canary}", "mode": "w"},
    "sys.exit": {"status": 0},
    "os._exit": {"status": 0},
    "os.abort": {},
    "signal.pause": {},
    "time.sleep": {"seconds": 1e6},
}


def _planted(place: Place) -> None:
    import pickle

    code = f"open({str(place.canary)!r}, 'w').close()\n"
    (place.folder / "planted.py").write_text(code, encoding="utf-8")
    (place.folder / "planted.txt").write_text(f">>> {code}", encoding="utf-8")
    from hostile.kinds.checkpoint import _Call, _dumps

    (place.folder / "planted.pkl").write_bytes(_dumps(_Call("os", "system", place.shell), 2))
    (place.folder / "planted.npy").write_bytes(pickle.dumps(_Reduced(place.shell), 2))


class _Reduced:
    def __init__(self, shell: str) -> None:
        self._shell = shell

    def __reduce__(self) -> Any:
        return os.system, (self._shell,)


# where a config names what is built
PLACES: tuple[tuple[str, ...], ...] = (
    ("custom_hooks", "+"),
    ("default_hooks", "extra"),
    ("default_hooks", "logger"),
    ("model",),
    ("model", "backbone"),
    ("model", "data_preprocessor"),
    ("model", "roi_head", "bbox_head", "loss_cls"),
    ("model", "train_cfg", "rpn", "assigner"),
    ("model", "init_cfg"),
    ("train_dataloader", "dataset", "pipeline", "+"),
    ("train_dataloader", "dataset"),
    ("val_dataloader", "dataset"),
    ("train_dataloader", "sampler"),
    ("train_dataloader", "batch_sampler"),
    ("train_dataloader", "collate_fn"),
    ("train_dataloader", "worker_init_fn"),
    ("val_evaluator",),
    ("visualizer",),
    ("visualizer", "vis_backends", "+"),
    ("optim_wrapper",),
    ("optim_wrapper", "optimizer"),
    ("optim_wrapper", "constructor"),
    ("optim_wrapper", "accumulative"),
    ("param_scheduler", "+"),
    ("train_cfg",),
    ("val_cfg",),
    ("test_cfg",),
    ("log_processor",),
    ("runner_type",),
    ("env_cfg", "dist_cfg"),
    ("model_wrapper_cfg",),
    ("tta_model",),
    ("work_dir",),
    ("strategy",),
)


def runners() -> dict[str, Callable[[dict[str, Any], Place], Any]]:
    """Changes of a valid config that try to run code, by name."""
    changes: dict[str, Callable[[dict[str, Any], Place], Any]] = {}
    for n, (target, arguments) in enumerate(CALLS.items()):
        for where in dict.fromkeys([PLACES[0], PLACES[n % len(PLACES)]]):
            changes[f"{target} as {'.'.join(where)}"] = functools.partial(
                _put, where, {"type": target, **arguments}
            )
    for where in PLACES:
        call = {"type": "subprocess.getoutput", "cmd": "touch {canary}"}
        changes[f"subprocess.getoutput as {'.'.join(where)}"] = functools.partial(_put, where, call)
    for key, item in {
        "custom_imports of a planted module": ("custom_imports", {"imports": ["planted"]}),
        "custom_imports that may fail": (
            "custom_imports",
            {"imports": "planted", "allow_failed_imports": True},
        ),
        "a Python _base_": ("_base_", "./planted.py"),
        "a list of Python _base_": ("_base_", ["./planted.py"]),
        "a _base_ of another package": ("_base_", "planted::x.py"),
        "a _base_ upwards": ("_base_", "../../../../../../etc/passwd"),
        "a _base_ that is an address": ("_base_", "http://127.0.0.1:9/x.py"),
        "a _base_ with an escape": ("_base_", mutate.ESCAPE),
        "a _base_ that is itself, yaml": ("_base_", "./x.yaml"),
        "a _base_ that is itself, json": ("_base_", "./x.json"),
        "default_scope planted": ("default_scope", "planted"),
        "default_scope os": ("default_scope", "os"),
        "launcher of text": ("launcher", "x\x1b[31m"),
        "resume of text": ("resume", "planted.pkl"),
        "load_from a pickle": ("load_from", "planted.pkl"),
        "a work_dir elsewhere": ("work_dir", "../outside"),
        "an embedded dataset elsewhere": ("data_root", "../outside/"),
        "file_client_args": ("file_client_args", {"backend": "subprocess.getoutput"}),
        "backend_args": ("backend_args", {"backend": "petrel"}),
    }.items():
        changes[key] = functools.partial(_set_top, *item)
    for n, field in enumerate(("proposal_file", "ann_file", "seg_map_suffix", "indices")):
        for split in ("train_dataloader", "val_dataloader"):
            name = f"{field} that is a pickle, {split}"
            changes[name] = functools.partial(
                _put, (split, "dataset", field), ("planted.pkl", "planted.npy")[n % 2]
            )
    for template in ("{{ fileDirname }}", "{{ $PATH:x }}", "{{ _base_.x }}", "{{ __import__('os') }}",
                     "{{$HOME:}}", "{{ fileBasename"):  # fmt: skip
        changes[f"the template {template}"] = functools.partial(_set_top, "work_dir", template)
    return changes


def _put(where: tuple[str, ...], value: Any, cfg: dict[str, Any], place: Place) -> None:
    _planted(place)
    node: Any = cfg
    for key in where[:-1]:
        if isinstance(node, list):
            node = node[0]
        if not isinstance(node.get(key), (dict, list)):
            node[key] = [] if where[-1] == "+" and key == where[-2] else {}
        node = node[key]
    last = where[-1]
    if last == "+":
        node.append(value)
    elif isinstance(node, list):
        node[0] = value
    else:
        node[last] = value


def _set_top(key: str, value: Any, cfg: dict[str, Any], place: Place) -> Any:
    _planted(place)
    cfg[key] = value
    return {key: value} if key == "_base_" and "itself" not in str(value) else cfg


# --- texts that are no config --------------------------------------------------------------------


def yaml_texts() -> dict[str, str | bytes]:
    deep = "[" * 3000 + "]" * 3000
    bomb = "a0: &a0 [x, x, x, x, x, x, x, x, x]\n" + "".join(
        f"a{n}: &a{n} [{', '.join([f'*a{n - 1}'] * 9)}]\n" for n in range(1, 10)
    )
    texts: dict[str, str | bytes] = {
        "empty": "",
        "null": "null\n",
        "a list": "- 1\n",
        "text": "hello\n",
        "a number": "5\n",
        "binary": bytes(range(256)),
        "UTF-16": "model: 1\n".encode("utf-16"),
        "tabs": "model:\n\ttype: x\n",
        "two documents": "model: {}\n---\nmodel: {}\n",
        "an alias bomb": bomb + "model: {type: MaskRCNN}\n",
        "deep": f"model: {deep}\n",
        "deep mappings": "{a: " * 3000,
        "itself": "model: &a {type: MaskRCNN, backbone: *a}\n",
        "no model": "train_cfg: {}\n",
        "a model of text": "model: MaskRCNN\n",
        "a model without a type": "model: {backbone: {}}\n",
        "a model of an unknown type": "model: {type: MaskRCNNN}\n",
        "a type that is a number": "model: {type: 5}\n",
        "a type that is null": "model: {type: ~}\n",
        "a type that is a list": "model: {type: [MaskRCNN]}\n",
        "a type with an escape": 'model: {type: "\\e[31mMaskRCNN"}\n',
        "keys that are numbers": "5: 6\nmodel: {type: MaskRCNN}\n",
        "keys that are null": "~: 6\nmodel: {type: MaskRCNN}\n",
        "keys that are lists": "? [a]\n: 6\n",
        "keys with dots": "a.b.c: 5\nmodel: {type: MaskRCNN}\n",
        "a reserved key": "filename: x\nmodel: {type: MaskRCNN}\n",
        "the reserved key text": "text: x\n_cfg_dict: {}\n",
        "duplicate models": "model: {type: A}\nmodel: {type: B}\n",
        "5,000 digits": "x: " + "9" * 5000 + "\n",
        "an unknown tag": "model: !x y\n",
        "a date": "model: 2026-01-01\n",
        "a set": "model: !!set {a, b}\n",
        "an escape": f"model: {mutate.ESCAPE}\n",
        "a missing _base_": "_base_: nowhere.yaml\n",
        "a _base_ of numbers": "_base_: 5\n",
        "a _base_ of a mapping": "_base_: {a: 1}\n",
        "a _base_ of null": "_base_: ~\n",
        "a _base_ that is empty": "_base_: ''\n",
        "_delete_ at the top": "_delete_: true\n",
        "not closed": "model: {type: \n",
    }
    for tag in (
        *("object/apply:os.system", "object/apply:subprocess.getoutput", "object/new:os.system"),
        *("name:os.system", "module:planted", "object:os.system", "object/apply:builtins.exec"),
        *("object/apply:builtins.eval", "object/apply:builtins.open", "object/new:str"),
    ):
        texts[f"!!python/{tag}"] = f"model: !!python/{tag} ['touch {{canary}}']\n"
        texts[f"!!python/{tag} in a tuple"] = (
            f"model: !!python/tuple [!!python/{tag} ['touch {{canary}}']]\n"
        )
    return texts


def json_texts() -> dict[str, str | bytes]:
    return {
        "empty": "",
        "null": "null",
        "a list": "[1]",
        "text": '"model"',
        "a comma too much": '{"model": {"type": "MaskRCNN"},}',
        "a comment": "// x\n{}",
        "deep": '{"model": ' + "[" * 100_000 + "]" * 100_000 + "}",
        "NaN": '{"model": NaN}',
        "5,000 digits": '{"model": ' + "9" * 5000 + "}",
        "a surrogate": '{"model": {"type": "\\ud800"}}',
        "a NUL": '{"model": {"type": "\\u0000"}}',
        "an escape": '{"model": {"type": "\\u001b[31m"}}',
        "binary": bytes(range(256)),
        "UTF-16": '{"model": 1}'.encode("utf-16"),
        "a byte order mark": b'\xef\xbb\xbf{"model": {"type": "x"}}',
        "duplicate models": '{"model": {"type": "A"}, "model": {"type": "B"}}',
        "an empty object": "{}",
        "a missing _base_": '{"_base_": "nowhere.json"}',
    }


def programs() -> dict[str, str | bytes]:
    """Python configs that are wrong on their own, by name."""
    return {
        "empty": "",
        "a syntax error": "model = dict(\n",
        "an indentation error": "model = 1\n  x = 2\n",
        "tabs and spaces": "if 1:\n\tx = 1\n        y = 2\n",
        "Python 2": "print 'x'\n",
        "a number too long": "x = " + "9" * 5000 + "\n",
        "too deep": "x = " + "(" * 5000 + ")" * 5000 + "\n",
        "deep lists": "x = " + "[" * 150 + "]" * 150 + "\n",
        "an addition of 50,000": "x = " + "+".join(["1"] * 50_000) + "\n",
        "a NUL": b"x = 1\x00\n",
        "binary": bytes(range(256)),
        "Latin-1": "# coding: latin-1\nx = 'é'\n".encode("latin-1"),
        "an unknown coding": "# coding: nothing\nx = 1\n",
        "UTF-16": "x = 1\n".encode("utf-16"),
        "a byte order mark": b"\xef\xbb\xbfmodel = 5\n",
        "an escape": f"x = '{mutate.ESCAPE}'\n",
        "an escape in an error": f"raise ValueError('{mutate.ESCAPE}')\n",
        "a division by zero": "x = 1 / 0\n",
        "an error of a megabyte": "raise ValueError('x' * 2**20)\n",
        "an error of many lines": "raise ValueError('x\\n' * 500)\n",
        "an error without words": "raise ValueError\n",
        "an error that cannot be shown": "class E(Exception):\n    def __str__(self):\n        raise ValueError\nraise E\n",
        "sys.exit(0)": "import sys\nsys.exit(0)\n",
        "sys.exit(3)": "import sys\nsys.exit(3)\n",
        "sys.exit with text": "import sys\nsys.exit('bye')\n",
        "a SystemExit": "raise SystemExit\n",
        "a BaseException": "raise BaseException('x')\n",
        "a GeneratorExit": "raise GeneratorExit\n",
        "a StopIteration": "raise StopIteration\n",
        "an import that is missing": "import nothing_like_this\n",
        "a _base_ that is missing": "_base_ = './nowhere.py'\n",
        "a _base_ that is itself": "_base_ = './x.py'\n",
        "a _base_ of a number": "_base_ = 5\n",
        "a _base_ that is empty": "_base_ = ''\n",
        "a _base_ of None": "_base_ = None\n",
        "a _base_ of an unknown package": "_base_ = 'nothing::x.py'\n",
        "a _base_ of a package without configs": "_base_ = 'json::x.py'\n",
        "a _base_ of a config that is missing": "_base_ = 'sparsevit::demo/nothing.py'\n",
        "a _base_ that is an address": "_base_ = 'http://127.0.0.1:9/x.py'\n",
        "two _base_ with equal keys": "_base_ = ['./tiny.py', './tiny.py']\n",
        "?two _base_": "_base_ = './tiny.py'\n_base_ = './nowhere.py'\n",
        "a reserved name": "filename = 1\nmodel = dict(type='MaskRCNN')\n",
        "no model": "train_cfg = dict()\n",
        "a model of text": "model = 'MaskRCNN'\n",
        "a model of None": "model = None\n",
        "a model without a type": "model = dict()\n",
        "a model of an unknown type": "model = dict(type='MaskRCNNN', backbone=dict(type='x'))\n",
        "a model that cannot be sparse": "model = dict(type='RetinaNet', backbone=dict(type='ResNet'))\n",
        "a model with itself": "model = dict(type='MaskRCNN')\nmodel['backbone'] = model\n",
        "custom_imports of nothing": "custom_imports = dict(imports=['nothing_like_this'])\n",
        "custom_imports of text": "custom_imports = 'x'\n",
        "custom_imports of a number": "custom_imports = dict(imports=5)\n",
        "a lazy config": "from mmengine.config import read_base\nwith read_base():\n    from .nowhere import *\n",
        "a lazy config of something else": "from mmengine.config import read_base\nwith read_base():\n    import os\n",
        "a lambda": "model = lambda: 1\n",
        "a template": "x = '{{ nothing }}'\nmodel = {{ _base_.model }}\n",
        "an environment variable that is missing": "x = '{{ $NOTHING_LIKE_THIS }}'\nmodel = 1\n",
    }


def additions() -> dict[str, str]:
    """Lines that spoil a good config, by name."""
    return {
        "?no classes to train (command evaluate)": "metainfo = None\ntrain_dataloader = dict(dataset=dict(metainfo=dict(classes=())))",
        "num_classes 2 of 3": "model = dict(roi_head=dict(bbox_head=dict(num_classes=2), mask_head=dict(num_classes=2)))",
        "num_classes 0": "model = dict(roi_head=dict(bbox_head=dict(num_classes=0)))",
        "num_classes -1": "model = dict(roi_head=dict(bbox_head=dict(num_classes=-1)))",
        "num_classes of text": "model = dict(roi_head=dict(bbox_head=dict(num_classes='x')))",
        "depths too few": "model = dict(backbone=dict(depths=[2, 2]))",
        "depths odd": "model = dict(backbone=dict(depths=[2, 2, 3, 2]))",
        "depths of 0": "model = dict(backbone=dict(depths=[0, 0, 0, 0]))",
        "embed_dims of 0": "model = dict(backbone=dict(embed_dims=0))",
        "embed_dims of 7": "model = dict(backbone=dict(embed_dims=7))",
        "embed_dims of 10^9": "model = dict(backbone=dict(embed_dims=10**9))",
        "embed_dims of 10^20": "model = dict(backbone=dict(embed_dims=10**20))",
        "depths of 10^6": "model = dict(backbone=dict(depths=[2, 2, 10**6, 2]))",
        "window_size of 0": "model = dict(backbone=dict(window_size=0))",
        "window_size of text": "model = dict(backbone=dict(window_size='x'))",
        "window_size of 10^6": "model = dict(backbone=dict(window_size=10**6))",
        "an unknown argument": "model = dict(backbone=dict(nothing=1))",
        "a neck of the wrong width": "model = dict(neck=dict(in_channels=[1, 2, 3, 4]))",
        "pruning_ratios of text": "model = dict(backbone=dict(type='SparseViT', pruning_ratios='x'))",
        "pruning_ratios above 1": "model = dict(backbone=dict(type='SparseViT', pruning_ratios=[[2, 2]] * 4))",
        "sparsity of text": "sparsity = 'x'",
        "sparsity of unknown knobs": "sparsity = {'nothing': 0.5}",
        "sparsity of NaN": "sparsity = {'backbone.stages.0': float('nan')}",
        "?a lambda in it": "x = lambda: 1",
        "?an open file in it": "x = open('tiny.py')",
        "?a module in it": "import os",
        "?an object in it": "class A: pass\na = A()",
        "?a generator in it": "a = (n for n in range(3))",
        "?itself in it": "a = []\na.append(a)",
        "?an endless number": "a = float('inf')",
        "?text with an escape": "a = '\\x1b[31m'",
        "?text that is a surrogate": "a = '\\ud800'",
        "?a megabyte of text": "a = 'x' * 2**20",
        "?a name that is no identifier": "globals()['a b'] = 1",
        "?a deep list": "a = []\nfor _ in range(90):\n    a = [a]",
        "a dataset of no type": "train_dataloader = dict(dataset=dict(type='Nothing'))\nval_dataloader = dict(dataset=dict(type='Nothing'))",
        "an embedded dataset of text": "embedded_dataset = 'x'",
        "an embedded dataset of nothing": "embedded_dataset = dict(train=0, val=0, _delete_=True)",
        "an embedded dataset of 10^20": "embedded_dataset = dict(train=10**20, val=2, _delete_=True)",
        "an embedded dataset of text sizes": "embedded_dataset = dict(train='x', width='y', _delete_=True)",
        "an embedded dataset of negative size": "embedded_dataset = dict(train=2, val=2, width=-5, height=5, _delete_=True)",
        "an embedded dataset of a huge size (command evaluate)": "embedded_dataset = dict(train=2, val=2, width=10**6, height=10**6, _delete_=True)",
        "an evaluator of another split (command evaluate)": "val_evaluator = dict(ann_file='{{_base_.data_root}}annotations/instances_train.json')",
        "no evaluator (command evaluate)": "val_evaluator = None\ntest_evaluator = None",
        "an evaluator of text (command evaluate)": "val_evaluator = 'x'\ntest_evaluator = 'x'",
        "an unknown metric (command evaluate)": "val_evaluator = dict(metric='nothing')\ntest_evaluator = val_evaluator",
        "an evaluator without a file (command evaluate)": "val_evaluator = dict(ann_file='nowhere.json')\ntest_evaluator = val_evaluator",
        "no test pipeline (command evaluate)": "val_dataloader = dict(dataset=dict(pipeline=[]))\ntest_dataloader = val_dataloader",
        "a pipeline of text (command evaluate)": "val_dataloader = dict(dataset=dict(pipeline='x'))\ntest_dataloader = val_dataloader",
        "no meta keys (command evaluate)": "test_pipeline[-1] = dict(type='PackDetInputs', meta_keys=())",
        "a resize to 0 (command evaluate)": "test_pipeline[1] = dict(type='Resize', scale=(0, 0), keep_ratio=True)",
        "a resize to 10^6 (command evaluate)": "test_pipeline[1] = dict(type='Resize', scale=(10**6, 10**6), keep_ratio=True)",
        "a resize of text (command evaluate)": "test_pipeline[1] = dict(type='Resize', scale='x', keep_ratio=True)",
    }


NAMES = (
    *("nowhere.py", "nowhere.yaml", "x.toml", "tiny.pyc", "tiny", "tiny.py/x.py", "ws", "."),
    *("..", "/"),
    *("", " ", "-", "sparsevit::", "::", "sparsevit::nothing.py", "sparsevit::../../setup.py"),
    *("a::b::c",),
    *("nothing::x.py", "mmdet::nothing.py", "os::x.py", "json::x.py", "http://127.0.0.1:9/x.py"),
    *("a" * 300 + ".py", "a/" * 3000 + "x.py", "x\x1b[31m.py", "\udcff.py"),
    *("~nobody-of-this-name/x.py",),
    *("notes.txt", "photos.json", "thesis.yaml", "private/key", "/etc/passwd", "/dev/null"),
    *("[bold]x.py",),
    *("ws/workspace.json", "ws/best.yaml", CHECKPOINT, "ws/search/run-001/study.db", "²", "%s%n"),
    *("mask_rcnn_swin_shape", "faster_rcnn", "\u202excp.py", "x.py\n", "C:\\x.py"),
    *("file:///etc/passwd",),
)  # fmt: skip
