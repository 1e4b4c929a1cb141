"""Files of ratios: YAML and JSON that ``--sparsity`` reads."""

from __future__ import annotations

import functools
import json
import os
import random
from collections.abc import Callable
from typing import Any

from hostile import mutate
from hostile.case import MAYBE, MISTAKE, Case, Place
from hostile.kinds.checkpoint import special_files

COMMANDS: tuple[tuple[str, ...], ...] = (
    ("export-config", "--workspace", "ws", "--sparsity", "{file}", "-o", "out.yaml"),
    ("export-config", "--workspace", "ws", "--sparsity", "{file}"),
    ("evaluate", "--workspace", "ws", "--eval-images", "1", "--sparsity", "{file}"),
    (
        *("latency", "--workspace", "ws", "--img-size", "64", "--seconds", "0.01"),
        *("--sparsity", "{file}"),
    ),
    ("finetune", "--workspace", "ws", "--set", "train_cfg.max_iters=1", "--sparsity", "{file}"),
)
KNOBS = {
    "backbone.stages.0": 0.3,
    "backbone.stages.1": 0.3,
    "backbone.stages.2_1": 0.1,
    "backbone.stages.2_2": 0.8,
    "backbone.stages.3": 0.6,
}
NESTED = [[0.3, 0.3], [0.3, 0.3], [0.1, 0.1, 0.8, 0.8], [0.6, 0.6]]
GOOD = {"sparsity": KNOBS, "pruning_ratios": NESTED, "metric": "bbox_mAP", "score": 0.1}
KNOB = "backbone.stages.0"


def catalogue() -> list[Case]:
    cases = []
    for n, (name, text) in enumerate(texts().items()):
        certain = not name.startswith("?")
        codes = MISTAKE if certain else MAYBE
        suffix = "json" if "JSON" in name else ("yaml", "yml")[n % 2]
        cases.append(_case(name, text, f"x.{suffix}", n, codes))
    for n, (name, make) in enumerate(special_files().items()):
        file = name if name.startswith("/") else "x.yaml"
        cases.append(Case(name, _words(n, file), functools.partial(_special, make), MISTAKE))
    names = (
        *("x.txt", "x", "x.YAML", "x.yaml.gz", "x.yaml ", "nowhere.yaml", "nowhere/x.yaml"),
        *(".yaml",),
        *("~nobody-of-this-name/x.yaml", "a" * 300 + ".yaml", "a/" * 3000 + "x.yaml"),
        *("x\x1b[31m.yaml", "\udcff.yaml"),
        *("tiny.py/x.yaml", "", ".", "ws", "-", "x.py", "x.toml", "http://127.0.0.1:9/x.yaml"),
        *("[bold]x.yaml", "private/key"),
    )  # fmt: skip
    for n, name in enumerate(names):
        cases.append(Case(f"the name {name[:40]!a}", _words(n, name), None, MISTAKE))
    return cases


def mutation(rng: random.Random) -> Case:
    form = rng.choice(["yaml", "json", "text"])
    n = rng.randrange(len(COMMANDS))
    good = rng.choice([GOOD, {"sparsity": KNOBS}, {"pruning_ratios": NESTED}, NESTED])
    if form == "text":
        import yaml

        text, how = mutate.text(yaml.safe_dump(good), rng)
        return _case(f"YAML text, {how}", text, "x.yaml", n, MAYBE)
    changed, how = mutate.document(good, rng)
    return _case(f"{form}: {how}", _dump(changed, form), f"x.{form}", n, MAYBE)


def _dump(document: Any, form: str) -> str:
    # JSON is YAML too, and says what safe_dump would refuse to
    try:
        return json.dumps(document)
    except (ValueError, RecursionError):
        return "{"


def _words(n: int, file: str) -> tuple[str, ...]:
    return tuple(word.replace("{file}", file) for word in COMMANDS[n % len(COMMANDS)])


def _case(name: str, text: str | bytes, file: str, n: int, codes: frozenset[int]) -> Case:
    make = functools.partial(_write, text, file)
    return Case(name, _words(n, file), make, codes, writes=("out.yaml",))


def _write(text: str | bytes, file: str, place: Place) -> None:
    data = text if isinstance(text, bytes) else text.encode("utf-8", "surrogateescape")
    data = data.replace(b"{canary}", str(place.canary).encode())
    (place.folder / file).write_bytes(data)


def _special(make: Callable[[Place], object], place: Place) -> None:
    make(place)
    for name in ("x.pth", "x.safetensors"):
        if os.path.lexists(place.folder / name):
            os.rename(place.folder / name, place.folder / "x.yaml")


def _with(value: str) -> str:
    """A configuration whose first ratio is ``value``, as YAML."""
    rest = "".join(f"  {knob}: {ratio}\n" for knob, ratio in list(KNOBS.items())[1:])
    return f"sparsity:\n  {KNOB}: {value}\n{rest}"


def texts() -> dict[str, str | bytes]:
    """Contents by name; ``?`` marks what may be legal."""
    good = json.dumps({"sparsity": KNOBS})
    bomb = "a0: &a0 [x, x, x, x, x, x, x, x, x]\n" + "".join(
        f"a{n}: &a{n} [{', '.join([f'*a{n - 1}'] * 9)}]\n" for n in range(1, 12)
    )
    merge = "m0: &m0 {x: 0}\n" + "".join(
        f"m{n}: &m{n} {{<<: [{', '.join([f'*m{n - 1}'] * 9)}]}}\n" for n in range(1, 9)
    )
    files: dict[str, str | bytes] = {
        "empty": "",
        "spaces": "   \n\n",
        "a comment": "# nothing\n",
        "---": "---\n...\n",
        "several documents": "sparsity: {}\n---\nsparsity: {}\n",
        "null": "null",
        "a number": "0.5",
        "text": "hello",
        "a list of text": "[a, b]",
        "binary": bytes(range(256)),
        "UTF-16": good.encode("utf-16"),
        "?UTF-8 with a mark": b"\xef\xbb\xbf" + good.encode(),
        "NUL in the text": good.encode() + b"\x00",
        "tabs": "sparsity:\n\tbackbone.stages.0: 0.5\n",
        "an alias bomb": bomb,
        "an alias bomb as the ratio": bomb + "sparsity:\n  backbone.stages.0: *a11\n",
        "an alias bomb as the list": bomb + "pruning_ratios: *a11\n",
        "an alias bomb beside it": _with("0.3") + bomb,
        "a merge bomb": merge + "sparsity: *m8\n",
        "an alias of itself": "&a sparsity: &b {backbone.stages.0: *b}\n",
        "a list that holds itself": "&a [*a, *a]\n",
        "pruning_ratios that hold themselves": "pruning_ratios: &a [*a]\n",
        "an alias of nothing": "sparsity: *nothing\n",
        "an anchor alone": "sparsity: &a\n",
        "nested 2,000 deep": "sparsity: " + "[" * 2000 + "]" * 2000,
        "nested 2,000 deep, JSON": '{"sparsity": ' + "[" * 2000 + "]" * 2000 + "}",
        "nested 100,000 deep, JSON": '{"sparsity": ' + "[" * 100_000 + "]" * 100_000 + "}",
        "nested 100,000 deep": "[" * 100_000,
        "mappings 5,000 deep": "{a: " * 5000,
        "indented 3,000 deep": "".join(" " * n + "a:\n" for n in range(3000)),
        "dashes 3,000 deep": "- " * 3000 + "1\n",
        "question marks 3,000 deep": "? " * 3000 + "1\n",
        "a megabyte of one number": _with("9" * 2**20),
        "a number of 5,000 digits": _with("9" * 5000),
        "a number of 5,000 digits, JSON": '{"sparsity": {"backbone.stages.0": ' + "9" * 5000 + "}}",
        "a fraction of 100,000 digits": _with("0." + "9" * 100_000),
        "1e999999999": _with("1e999999999"),
        "an octal of 5,000 digits": _with("0o" + "7" * 5000),
        "a sexagesimal of 5,000 parts": _with(":".join(["59"] * 5000)),
        "a hexadecimal of 5,000 digits": _with("0x" + "f" * 5000),
        "a binary of 50,000 digits": _with("0b" + "1" * 50_000),
        "a date": _with("2026-01-01"),
        "an impossible date": _with("2026-99-99"),
        "an impossible time": _with("2026-01-01T99:99:99Z"),
        "!!binary": _with("!!binary aGVsbG8="),
        "!!binary that is none": _with("!!binary '***'"),
        "!!set": _with("!!set {a, b}"),
        "!!omap": _with("!!omap [a: 1]"),
        "!!pairs": _with("!!pairs [a: 1]"),
        "!!omap that is none": _with("!!omap {a: 1}"),
        "!!int of text": _with("!!int x"),
        "!!int of nothing": _with('!!int ""'),
        "!!float of text": _with("!!float x"),
        "!!float of nothing": _with('!!float ""'),
        "!!bool of text": _with("!!bool x"),
        "!!timestamp of text": _with("!!timestamp x"),
        "!!null of text": _with("!!null x"),
        "!!map of text": _with("!!map x"),
        "!!seq of text": _with("!!seq x"),
        "!!str of a map": _with("!!str {a: 1}"),
        "!!merge": _with("!!merge x"),
        "!!value": _with("!!value x"),
        "a value key": _with("{=: 0.5}"),
        "a merge of text": "sparsity:\n  <<: x\n",
        "a merge of a list of text": "sparsity:\n  <<: [x]\n",
        "an unknown tag": _with("!unknown x"),
        "a tag that is not closed": _with("!<tag x"),
        "an escape in a tag": _with('!"\x1b[31m" x'),
        "a mapping as a key": "sparsity: {? {a: 1} : 0.5}\n",
        "a list as a key": "sparsity: {? [a] : 0.5}\n",
        "null as a key": "sparsity: {~: 0.5}\n",
        "NaN as a key": "sparsity: {.nan: 0.5}\n",
        "true as a key": "sparsity: {true: 0.5}\n",
        "a number as a key": "sparsity: {5: 0.5}\n",
        "a date as a key": "sparsity: {2026-01-01: 0.5}\n",
        "a duplicate knob": _with("0.3") + f"  {KNOB}: 0.4\n",
        "a duplicate knob of equal value": _with("0.3") + f"  {KNOB}: 0.3\n",
        "a duplicate sparsity": _with("0.3") + _with("0.4"),
        "a duplicate knob, JSON": f'{{"sparsity": {{"{KNOB}": 0.3, "{KNOB}": 0.4}}}}',
        "a duplicate sparsity, JSON": '{"sparsity": {}, ' + good[1:],
        "a key of 100,000 characters": "sparsity: {? " + "a" * 100_000 + " : 0.5}\n",
        "200,000 knobs": "sparsity:\n" + "".join(f"  k{n}: 0.1\n" for n in range(200_000)),
        "200,000 stages": "pruning_ratios: [" + "[0.1], " * 200_000 + "]\n",
        "a knob with an escape": 'sparsity: {"\\e[31mred": 0.5}\n',
        "a knob with a line": 'sparsity: {"a\\nb": 0.5}\n',
        "a knob with markup": 'sparsity: {"[bold]x[/bold][/red]": 0.5}\n',
        "a knob with a direction mark": 'sparsity: {"\\u202eabc": 0.5}\n',
        "a knob with a NUL": 'sparsity: {"a\\0b": 0.5}\n',
        "a knob that is a surrogate, JSON": '{"sparsity": {"\\ud800": 0.5}}',
        "a ratio that is a surrogate, JSON": f'{{"sparsity": {{"{KNOB}": "\\ud800"}}}}',
        "a raw escape": f"sparsity: {{{mutate.ESCAPE}: 0.5}}\n",
        "an unclosed quote": "sparsity: 'abc\n",
        "an unclosed list": "pruning_ratios: [[0.1, 0.2]\n",
        "an unclosed mapping": "sparsity: {a: 1\n",
        "two colons": "sparsity: a: b: c\n",
        "%YAML 9.9": "%YAML 9.9\n---\nsparsity: {}\n",
        "%TAG": "%TAG ! tag:x,2000:\n---\nsparsity: !x y\n",
        "%": "%\n",
        "@": "@x\n",
        "`": "`x\n",
        "JSON with a comma too much": good[:-1] + ",}",
        "JSON with a comment": "// x\n" + good,
        "JSON twice": good + good,
        "JSON NaN": f'{{"sparsity": {{"{KNOB}": NaN}}}}',
        "JSON Infinity": f'{{"sparsity": {{"{KNOB}": -Infinity}}}}',
        "JSON cut": good[:-5],
        "JSON empty": "",
        "JSON text": '"x"',
        "JSON null": "null",
        "a web page": "<!DOCTYPE html><html></html>",
        "a best.yaml of a knob that is missing": json.dumps({"sparsity": {"nothing": 0.5}}),
        "?knobs left out": json.dumps({"sparsity": {KNOB: 0.3}}),
        "no knobs": json.dumps({"sparsity": {}}),
        "sparsity and other ratios": json.dumps({"sparsity": KNOBS, "pruning_ratios": [[0.1]]}),
        "sparsity is a list": json.dumps({"sparsity": NESTED}),
        "sparsity is text": json.dumps({"sparsity": "0.5"}),
        "sparsity is a number": json.dumps({"sparsity": 0.5}),
        "sparsity is null": json.dumps({"sparsity": None}),
        "ratios that fall": json.dumps({"sparsity": {**KNOBS, "backbone.stages.2_2": 0.0}}),
        "?pruning_ratios is a number": "pruning_ratios: 0.5",
        "pruning_ratios is a mapping": "pruning_ratios: {a: [0.5]}",
        "pruning_ratios is empty": "pruning_ratios: []",
        "pruning_ratios of empty stages": "pruning_ratios: [[], [], [], []]",
        "pruning_ratios of one stage": "pruning_ratios: [[0.5, 0.5]]",
        "pruning_ratios of a stage too much": f"pruning_ratios: {[*NESTED, [0.1]]}",
        "?pruning_ratios that are flat": "pruning_ratios: [0.1, 0.1, 0.1, 0.1]",
        "pruning_ratios that differ in a pair": f"pruning_ratios: {[[0.1, 0.2], *NESTED[1:]]}",
        "pruning_ratios with text": "pruning_ratios: [[a, b], [0.3, 0.3], [0, 0, 0, 0], [0, 0]]",
        "pruning_ratios one deeper": f"pruning_ratios: {[NESTED]}",
        "pruning_ratios null inside": "pruning_ratios: [[~, ~], [0, 0], [0, 0, 0, 0], [0, 0]]",
    }
    for value in (
        *("-0.1", "1.0", "1.5", "-1", "1e308", ".nan", "-.inf", ".inf", "null", "true", "text"),
        *("''",),
        *("[0.5]", "{a: 0.5}", "'0.5'", "0,5", "50%", "½", "0.5 0.5", "1e-400x", "[]", "{}"),
        *("!!str 0.5",),
        *("0.5e", "0x1", "1_0", "１", "0.5#", "- 0.5", "'\\x1b[31m'", '"\\e[31m"', "|", ">"),
        *("&a", "*a"),
    ):  # fmt: skip
        perhaps = "?" if value in ("'0.5'", "!!str 0.5") else ""
        files[f"{perhaps}a ratio of {value}"] = _with(value)
    for tag in (
        *("python/object/apply:os.system", "python/object/new:os.system", "python/name:os.system"),
        *("python/object/apply:subprocess.getoutput", "python/module:os"),
        *("python/object:os.system",),
        *("python/object/apply:builtins.eval", "python/object/apply:builtins.exec"),
        *("python/object/apply:builtins.open", "python/object/new:builtins.map", "python/tuple"),
        *("python/object/new:yaml.MappingNode", "python/bytes", "python/complex", "python/long"),
    ):  # fmt: skip
        files[f"!!{tag}"] = _with(f"!!{tag} ['touch {{canary}}']")
        files[f"!!{tag} beside it"] = _with("0.3") + f"extra: !!{tag} ['touch {{canary}}']\n"
    return files
