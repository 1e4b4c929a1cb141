"""Options: every option of every command, from typer's own tables, with values of every kind."""

from __future__ import annotations

import functools
import glob
import random
from collections.abc import Iterator
from dataclasses import dataclass
from enum import Enum
from pathlib import Path
from typing import Any, get_args

from hostile.case import FOUND, MAYBE, MISTAKE, Case

HUGE = "99999999999999999999"
SMALL_SEARCH = (
    *("--min", "0", "--max", "10000", "--trials", "2", "--population", "2", "--parents", "2"),
    *("--latency-seconds", "0.01", "--max-candidates", "20"),
)
ITER = ("--set", "train_cfg.max_iters=1")
# each command in its cheapest valid form; new commands are tried with none of it
BASES: dict[str, tuple[str, ...]] = {
    "pretrain": ("pretrain", "tiny.py", "--workspace", "ws", "--force", *ITER),
    "adapt": ("adapt", "--workspace", "ws", "--force", "--no-validate-before", *ITER),
    "search": ("search", "--workspace", "ws", *SMALL_SEARCH),
    "finetune": ("finetune", "--workspace", "ws", "--force", *ITER),
    "demo": ("demo", "--short", "--workspace", "ws", "--trials", "x"),
    "evaluate": ("evaluate", "--workspace", "ws", "--eval-images", "1"),
    "predict": ("predict", "--workspace", "ws", "--frames", "1", "-o", "out"),
    "latency": ("latency", "--workspace", "ws", "--img-size", "64", "--seconds", "0.01"),
    "calibrate": (
        *("calibrate", "--workspace", "ws", "--img-size", "64", "--seconds", "0.01"),
        *("--batch-size",),
        *("1", "--held-out", "1"),
    ),
    "sensitivity": (
        *("sensitivity", "--workspace", "ws", "--eval-images", "1", "--latency-seconds", "0.01"),
    ),
    "data make": ("data", "make", "made", "--train", "1", "--val", "1", "--img-size", "64"),
    "data show": ("data", "show", "--workspace", "ws", "-o", "out.png", "--images", "1"),
    "status": ("status", "--workspace", "ws"),
    "report": ("report", "--workspace", "ws", "--out", "out.html"),
    "doctor": ("doctor", "--workspace", "ws"),
    "export": ("export", "--workspace", "ws", "--format", "nothing", "-o", "out.onnx"),
    "export-config": ("export-config", "--workspace", "ws"),
}
WRITES = ("made", "made/*", "out*", "out/*", "ws2", "ws2/*", "work_dirs", "work_dirs/*", "new*")

NUMBERS = (
    *("x", "", " ", "²", "１２", "nan", "inf", "-inf", "1e999", "0x10", "1_0", "--", "-", "+5"),
    *(" 5", "5 "),
    *("0.5.5", "1,5", HUGE, "-" + HUGE, "9" * 5000, "1e308", "-0", "0", "-1", "true", "None"),
    *("\x1b[31m5",),
)  # fmt: skip
PATHS = (
    *("nowhere", "nowhere/x", "", " ", ".", "private/..", "/proc", "ws", "private", "tiny.py"),
    *("tiny.py/x", "notes.txt"),
    *("a" * 300, "a/" * 3000, "~nobody-of-this-name/x", "x\x1b[31m", "\udcff"),
    *("[bold]x[/bold]", "[/x]", "²", "-", "--"),
    *("/dev/null", "/dev/zero", "/dev/full", "/dev/stdin", "/proc/self/mem", "/proc/x", "a\nb"),
    *("\u202ex",),
    *("http://127.0.0.1:9/x", "file:///etc/passwd", "s3://b/x", "C:\\x", "$HOME", "*", "%s%n"),
    *("x" * 100_000,),
)  # fmt: skip
TEXTS = (
    *("x", "", " ", "²", "\x1b[31mx", "\udcff", "a" * 300, "x" * 100_000, "[bold]x[/bold]"),
    *("[/x]", "None"),
    *("0", "-1", "5", HUGE, "nan", ",", ":", "=", "a,b", "a:b", "1:2:3", "2:1", "-1:5"),
    *("nan:inf", "inf:nan"),
    *("0.5", "0.5,", "0.5,x", "1.0", "2", "64x64", "64x", "x64", "0x0", "64X64x64", "-64"),
    *("6.4", "64x²", "１x１"),
    *("1000000", "99999999x1", HUGE + "x" + HUGE, "1", "31", "33", "cpu:0", "cpu:99", "cuda"),
    *("cuda:x", "meta"),
    *("mps", "xla", "cuda:-1", "cpu ", "hpu", "vulkan", "privateuseone", "cuda:" + HUGE),
    *("bbox_mAP_xyz", "\x00"),
    *("evolution,random", "../../x", "os.system", "0:0", "0:" + HUGE, "1e308:inf"),
    *("1e-300:1e-299", ":5", "5:"),
)  # fmt: skip


@dataclass(frozen=True)
class Option:
    """What typer knows of an option or argument.

    Args:
        command: its command, ``data make`` too.
        words: how it is given: the longest name, or nothing for an argument.
        values: the kind of its values: int, float, path, choice, text or flag.
        choices: of a choice.
        low, high: bounds of a number.
    """

    command: str
    words: str
    values: str
    choices: tuple[str, ...]
    low: float | None
    high: float | None


@functools.cache
def options() -> tuple[Option, ...]:
    """Every option and argument of every command, hidden ones too."""
    return tuple(_options())


def _options() -> Iterator[Option]:
    from sparsevit.cli.main import COMMANDS, load_command

    for name in sorted(COMMANDS):
        loaded = load_command(name)
        members: dict[str, Any] = getattr(loaded, "commands", None) or {"": loaded}
        for sub in sorted(members):
            command = f"{name} {sub}".strip()
            for parameter in members[sub].params:
                if "--help" in parameter.opts:
                    continue
                names = [opt for opt in parameter.opts if opt.startswith("-")]
                values, choices, low, high = _type_of(parameter)
                yield Option(command, max(names, key=len, default=""), values, choices, low, high)


def _type_of(parameter: Any) -> tuple[str, tuple[str, ...], float | None, float | None]:
    """Kind of values, choices and bounds; where typer keeps them depends on its version."""
    if getattr(parameter, "is_flag", False):
        return "flag", (), None, None
    descriptor = getattr(parameter, "type_descriptor", None)
    if descriptor is None:
        kind = parameter.type
        choices = tuple(str(getattr(c, "value", c)) for c in getattr(kind, "choices", ()))
        known = {"integer": "int", "float": "float", "path": "path"}
        values = "choice" if choices else known.get(str(kind.name).split(" ")[0], "text")
        return values, choices, getattr(kind, "min", None), getattr(kind, "max", None)
    annotation = descriptor.annotation
    annotation = next(iter(get_args(annotation)), annotation)
    if isinstance(annotation, type) and issubclass(annotation, Enum):
        return "choice", tuple(str(one.value) for one in annotation), None, None
    values = {int: "int", float: "float", Path: "path", bool: "flag"}.get(annotation, "text")
    return values, (), parameter.min, parameter.max


def values_of(option: Option) -> list[tuple[str, frozenset[int]]]:
    """Values to try, with the exit codes that are right."""
    if option.values in ("int", "float"):
        return [(value, _number_codes(option, value)) for value in NUMBERS]
    if option.values == "choice":
        wrong = (
            "x",
            "",
            " ",
            "²",
            "\x1b[31m",
            "a" * 300,
            "0",
            option.choices[0].upper() + "x",
            "[/x]",
        )
        return [(value, MISTAKE) for value in wrong] + [(c, MAYBE) for c in option.choices]
    if option.values == "path":
        return [(value, _path_codes(option, value)) for value in PATHS]
    return [
        (value, FOUND if option.command == "doctor" else MAYBE)
        for value in TEXTS
        if "\x00" not in value
    ]


def _number_codes(option: Option, value: str) -> frozenset[int]:
    try:
        number = float(value.replace("_", "x").strip()) if value.isascii() else None
    except ValueError:
        number = None
    if value == "²" or (number is None and not any(c.isdigit() for c in value)):
        return MISTAKE
    if number is not None and option.low is not None and number < option.low:
        return MISTAKE
    if number is not None and option.high is not None and number > option.high:
        return MISTAKE
    return FOUND if option.command == "doctor" else MAYBE


def _path_codes(option: Option, value: str) -> frozenset[int]:
    if option.command == "doctor":
        return FOUND
    return MAYBE


# what is asked for, and takes long: not a mistake
_WORKS_LONG = {
    ("latency", "--seconds"), ("calibrate", "--seconds"), ("latency", "--repeats"),
    ("latency", "--warmup"), ("search", "--latency-seconds"), ("sensitivity", "--latency-seconds"),
}  # fmt: skip
# they start processes of their own, seconds each: a few values are enough
_STARTS = ("--devices", "--workers", "--launcher")


def catalogue() -> list[Case]:
    cases = []
    for option in options():
        base = BASES.get(option.command, tuple(option.command.split()))
        if option.values == "flag":
            if option.words:
                value = f"{option.words}=x"
                cases.append(
                    Case(f"{option.command} {value}", (*base, value), None, MISTAKE, writes=WRITES)
                )
            continue
        for value, codes in values_of(option):
            certain = _certain(option, value)
            if certain is None:
                continue
            codes = certain or codes
            words = _words(option, base, value)
            name = f"{option.command} {option.words or 'argument'} {value[:30]!a}"
            cases.append(Case(name, words, None, codes, writes=WRITES + _asked_for(option, value)))
    for words in FORMS:
        cases.append(Case(" ".join(words)[:80], words, None, MISTAKE, writes=WRITES))
    for words in PAIRS:
        cases.append(Case(" ".join(words)[:80], words, None, MAYBE, writes=WRITES))
    return cases


_SOMEBODY_ELSES = ("tiny.py", "notes.txt", "ws", "private", "private/..", ".", "-", "--", "", " ")
# what a workspace holds, where the working directory itself is made one
_OF_A_WORKSPACE = tuple(
    f"{name}*"
    for name in (
        *("workspace.", "pretrain", "adapt", "search", "finetune", "data", "evaluations", "best"),
        *("calibrat", "sensitivity", "evaluate", "latency"),
    )
)


def _asked_for(option: Option, value: str) -> tuple[str, ...]:
    """What a command may write because this value names it."""
    if option.words == "--storage":
        made = value.split("/")[0].strip()
        return (glob.escape(made) + "*",) if made and made not in _SOMEBODY_ELSES else ()
    if option.values != "path":
        return ()
    named = () if value in _SOMEBODY_ELSES else (glob.escape(value), glob.escape(value) + "*")
    if "://" in value:
        # no folder of that name can be: its slashes are those of folders
        named = (value.partition("//")[0] + "*",)
    if option.words != "--workspace":
        return named
    if value == "private":
        return tuple(f"private/{one}" for one in _OF_A_WORKSPACE)
    return named + _OF_A_WORKSPACE


def _certain(option: Option, value: str) -> frozenset[int] | None:
    """Exit codes where the value says more than its kind; None where it is not tried."""
    if (option.command, option.words) in _WORKS_LONG and value in (
        HUGE,
        "1e308",
        "9" * 5000,
        "inf",
    ):
        return MISTAKE
    if option.words in _STARTS and value not in ("x", "", "0", "-1", "²", HUGE, "nan"):
        return None
    if option.words == "--workers" and value in ("1", "5"):
        return None
    if option.values == "int" and value in (
        "inf",
        "nan",
        "1e308",
        "1e999",
        "5 ",
        " 5",
        "１２",
        "1_0",
    ):
        return frozenset({0, 2})
    if option.command == "data make" and value in (HUGE, "9" * 5000) and option.values == "int":
        return MISTAKE if option.words in ("--train", "--val") else MAYBE
    if option.command == "demo" and option.words == "--trials":
        return MISTAKE if value in ("x", "", "0", "-1", "²", "nan") else None
    if option.words in ("--batch-size", "--held-out") and value == HUGE:
        return MISTAKE
    if option.words == "--set" and value in (":", ",", "x", "", "=", "0.5"):
        return MISTAKE
    if option.words == "--metric" and value != "None":
        return MISTAKE
    if option.words == "--img-size" and value in (
        HUGE + "x" + HUGE,
        "²",
        "64x²",
        "0x0",
        HUGE,
        "99999999x1",
        "1000000",
    ):
        return MISTAKE
    return frozenset()


def _words(option: Option, base: tuple[str, ...], value: str) -> tuple[str, ...]:
    if option.words:
        return (
            (*base, f"{option.words}={value}")
            if value.startswith("-")
            else (*base, option.words, value)
        )
    # arguments come first
    at = len(option.command.split())
    kept = tuple(word for word in base[at:] if word not in ("tiny.py", "made"))
    return (*base[:at], *kept, "--", value) if value.startswith("-") else (*base[:at], value, *kept)


FORMS: tuple[tuple[str, ...], ...] = (
    *(("nothing",), ("--nothing",), ("-x",), ("searchh",), ("\x1b[31m",), ("\udcff",), ("a" * 5000,), ("",), (" ",)),
    *(("search", "--max"), ("search",), ("search", "--max", "5"), ("status", "extra"), ("status", "--workspace")),
    *(("adapt", "a", "b", "c"), ("latency", "a", "b"), ("data", "nothing"), ("data", "show", "a", "b"), ("status", "-")),
    *(("status", "--", "x"), ("status", "--json=x"), ("status", "--jso=1"), ("status", "--workspace", "ws", "\x1b[31m")),
    *(("evaluate", "--workspace", "ws", "--nothing\x1b[31m"), ("evaluate", "--workspace", "ws", "--[bold]x")),
    *(("search", "--workspace", "ws", "--budget", "1:2", "--min", "3"), ("search", "--workspace", "ws", "--pareto", "--max", "5")),
    *(("adapt", "--workspace", "ws", "--force", "--resume"), ("search", "--workspace", "ws", "--force", "--resume", *SMALL_SEARCH)),
    *(("export", "--workspace", "ws", "-o", "x.nothing"), ("export-config", "--workspace", "ws", "-o", "x.nothing")),
    *(("export-config", "--workspace", "ws", "-o", "thesis.yaml"), ("export-config", "--workspace", "ws", "-o", "tiny.py")),
    *(("export-config", "--workspace", "ws", "-o", "private"), ("export-config", "--workspace", "ws", "-o", "nowhere/\x00x"[:-2] + "/dev/null/x")),
    *(("evaluate", "--workspace", "ws", "--dense", "--sparsity", "ws/best.yaml", "--budget", "x"),),
    *(("search", "--workspace", "ws", *SMALL_SEARCH, "--min", "10", "--max", "5"), ("search", "--workspace", "ws", "--budget", "5:1")),
    *(("status", "--workspace", "ws", *(["x"] * 5000)), ("evaluate", *(["--set", "a=1"] * 0), "--budget")),
)  # fmt: skip
# written by the command though something else is there
PAIRS: tuple[tuple[str, ...], ...] = (
    ("export-config", "--workspace", "ws", "-o", "out.yaml"),
    ("export-config", "--workspace", "ws", "-o", "out.json", "--force"),
    ("export-config", "--workspace", "ws", "-o", "out.py", "--json"),
    ("export-config", "--workspace", "ws", "--format", "json", "-o", "out.yaml"),
    ("evaluate", "--workspace", "ws", "--eval-images", "1", "--json"),
    ("evaluate", "--workspace", "ws", "--eval-images", "1", "--dense", "--device", "meta"),
    (
        "latency",
        "--workspace",
        "ws",
        "--img-size",
        "64",
        "--repeats",
        "1",
        "--warmup",
        "0",
        "--compare",
    ),
    ("latency", "--workspace", "ws", "--img-size", "32", "--batch-size", "1000000"),
    ("latency", "--workspace", "ws", "--img-size", "100000", "--batch-size", "1"),
    ("latency", "--workspace", "ws", "--img-size", "30000x30000", "--batch-size", "8"),
    ("search", "--show", "--workspace", "ws", "--json"),
    ("status", "--workspace", "ws", "--workspace", "nowhere"),
    ("--version",),
    ("--help",),
    ("search", "--help"),
    ("data",),
    (),
)


def mutation(rng: random.Random) -> Case:
    """Two or three options with hostile values at once."""
    command = rng.choice(sorted({option.command for option in options()} - {"demo", "export"}))
    own = [o for o in options() if o.command == command and o.words and o.words not in _STARTS]
    words = BASES.get(command, tuple(command.split()))
    for option in rng.sample(own, min(len(own), rng.choice([1, 2, 3]))):
        if option.values == "flag":
            words = (*words, option.words)
            continue
        if (option.command, option.words) in _WORKS_LONG or option.command == "data make":
            continue
        value, _ = rng.choice(values_of(option))
        words = (*words, f"{option.words}={value}")
    return Case(f"{command} with several", words, None, FOUND, writes=(*WRITES, "*.db", "*.log"))
