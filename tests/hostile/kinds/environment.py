"""What surrounds a command: streams, variables, limits, folders and planted files."""

from __future__ import annotations

import functools
import os
import random
import resource
import signal
import subprocess
import sys
import tempfile
from collections.abc import Callable
from pathlib import Path

from hostile.case import FOUND, MAYBE, Case, Place

STATUS = ("status", "--workspace", "ws")
EVALUATE = ("evaluate", "--workspace", "ws", "--eval-images", "1")
LATENCY = ("latency", "--workspace", "ws", "--img-size", "64", "--seconds", "0.01")
TRAIN = ("finetune", "--workspace", "ws", "--force", "--set", "train_cfg.max_iters=1")
EXPORT = ("export-config", "--workspace", "ws", "-o", "out.yaml")
SEARCH = (
    *("search", "--workspace", "ws", "--force", "--min", "0", "--max", "10000", "--trials", "2"),
    *("--population", "2", "--parents", "2", "--latency-seconds", "0.01"),
)
VERSION = ("--version",)
ERROR = ("evaluate", "nowhere.py")
COMMANDS = (STATUS, EVALUATE, LATENCY, TRAIN, EXPORT)
WRITES = ("out*", "work_dirs", "work_dirs/*")
# what may be said where nobody listens: EPIPE and the like are no success and no mistake
STREAM = frozenset({0, 1, 2})

RANKS = ("RANK", "SLURM_PROCID", "OMPI_COMM_WORLD_RANK", "LOCAL_RANK", "WORLD_SIZE", "SLURM_NTASKS")
STRANGE = ("abc", "", " ", "-1", "1.5", "²", "99999999999999999999", "0x0", "\x1b[31m", "nan", "0 ")
VARIABLES: dict[str, tuple[str, ...]] = {
    "OMP_NUM_THREADS": ("abc", "", "0", "-1", "99999999999999999999", "1,2,3", "²"),
    "MKL_NUM_THREADS": ("abc", "-1"),
    "COLUMNS": ("abc", "", "0", "-1", "1", "5", "99999999", "²"),
    "LINES": ("abc", "0", "-1"),
    "TERM": ("", "dumb", "nothing", "\x1b[31m", "xterm"),
    "NO_COLOR": ("", "1"),
    "FORCE_COLOR": ("", "0"),
    "TMPDIR": ("/nowhere", "", "/dev/null", "{folder}/tiny.py", "/proc", "a" * 5000),
    "HOME": ("/nowhere", "", "/dev/null", "relative", "{folder}/tiny.py", "/proc", "a" * 5000),
    "XDG_CACHE_HOME": ("/nowhere", "", "relative", "/dev/null"),
    "XDG_CONFIG_HOME": ("/nowhere", "/dev/null"),
    "MPLCONFIGDIR": ("/nowhere", "", "/dev/null", "{folder}/tiny.py"),
    "MPLBACKEND": ("", "nothing", "TkAgg", "module://os"),
    "MATPLOTLIBRC": ("/nowhere", "{folder}/tiny.py"),
    "LANG": ("", "C", "xx_XX.UTF-8", "ja_JP.eucJP", "\x1b[31m"),
    "LC_ALL": ("", "C", "POSIX", "xx"),
    "TZ": ("", "Nowhere/Else", "\x1b[31m", "a" * 5000),
    "PATH": ("", "/nowhere", "."),
    "LD_LIBRARY_PATH": (".",),
    "CC": ("nothing", "", "touch {canary}"),
    "CXX": ("nothing", "", "touch {canary}"),
    "TORCH_HOME": ("/nowhere", "", "/dev/null"),
    "CUDA_VISIBLE_DEVICES": ("abc", "", "-1", "99", "²"),
    "TORCH_LOGS": ("nothing", "+all"),
    "TORCH_FORCE_WEIGHTS_ONLY_LOAD": ("abc", "", "0"),
    "TORCH_FORCE_NO_WEIGHTS_ONLY_LOAD": ("1", "abc"),
    "TORCH_NUM_THREADS": ("abc",),
    "MASTER_ADDR": ("", "nowhere.invalid", "²"),
    "MASTER_PORT": ("", "abc", "-1", "99999999"),
    "SPARSEVIT_WORKSPACE": (
        "",
        " ",
        "nowhere",
        "/dev/null",
        "a" * 300,
        "\x1b[31m",
        "~nobody-of-this-name/x",
        "tiny.py",
    ),
    "SPARSEVIT_OPS": ("", "nothing", "\x1b[31m", "compiled", "os"),
    "SPARSEVIT_NATIVE": ("", "0", "1", "abc", "planted.so", "\x1b[31m"),
    "SPARSEVIT_CACHE": ("", "/nowhere", "/dev/null", "relative", "{folder}/tiny.py", "a" * 5000),
    "SPARSEVIT_STARTED_BY_DEVICES": ("", "1", "abc"),
    "GIT_DIR": ("/nowhere", ".", ""),
    "GIT_PAGER": ("touch {canary}",),
    "GIT_EXTERNAL_DIFF": ("touch {canary}",),
    "PAGER": ("touch {canary}",),
    "EDITOR": ("touch {canary}",),
    "BROWSER": ("touch {canary}",),
    "KMP_AFFINITY": ("nothing",),
    "SSL_CERT_FILE": ("/nowhere",),
    "http_proxy": ("nonsense", "http://me:hunter2Zq9xK@127.0.0.1:9"),
    "PYTHONHASHSEED": ("0",),
    "DISPLAY": ("", ":99", "nonsense"),
    "MALLOC_ARENA_MAX": ("1",),
    "USER": ("", "\x1b[31m"),
    "LOGNAME": ("",),
    "HOSTNAME": ("\x1b[31m",),
    "PWD": ("/nowhere", "\x1b[31m"),
    "SHELL": ("/nowhere",),
    "_TYPER_COMPLETE_ARGS": ("x",),
    "_SPARSEVIT_COMPLETE": ("complete_bash", "nothing", "source_zsh", "\x1b[31m"),
    "TERMINAL_WIDTH": ("abc", "0", "-5"),
    "TYPER_STANDARD_TRACEBACK": ("1",),
    "CUBLAS_WORKSPACE_CONFIG": ("nothing",),
    "TORCH_CPP_LOG_LEVEL": ("nothing",),
    "OPENCV_IO_MAX_IMAGE_PIXELS": ("abc", "1"),
    "MMENGINE_CACHE": ("/nowhere",),
}
# read by the interpreter or a library while it starts
AT_START: dict[str, tuple[str, ...]] = {
    "PYTHONIOENCODING": ("ascii", "latin-1", "utf-16", "ascii:strict"),
    "PYTHONUTF8": ("0",),
    "PYTHONWARNINGS": ("error", "nonsense", "error::DeprecationWarning"),
    "PYTHONOPTIMIZE": ("2",),
    "PYTHONDEVMODE": ("1",),
    "PYTHONINTMAXSTRDIGITS": ("640", "0"),
    "OMP_NUM_THREADS": ("abc", "-1", "99999999999999999999"),
    "COLUMNS": ("abc", "-1", "0"),
    "RANK": ("abc",),
    "SLURM_PROCID": ("x",),
    "HOME": ("", "/nowhere"),
    "TMPDIR": ("/nowhere",),
    "MPLCONFIGDIR": ("/dev/null",),
    "LC_ALL": ("C", "POSIX", "xx"),
    "TORCH_LOGS": ("nothing",),
    "KMP_DUPLICATE_LIB_OK": ("x",),
}
PLANTED = (
    *("yaml", "optuna", "torch", "numpy", "json", "typing", "rich", "typer", "mmengine"),
    *("mmdet", "logging"),
    *("sitecustomize", "usercustomize", "random", "sqlite3", "matplotlib", "signal", "io"),
    *("six", "cv2"),
)  # fmt: skip


def catalogue() -> list[Case]:
    cases: list[Case] = []

    def add(
        name: str, words: tuple[str, ...], codes: frozenset[int] = MAYBE, **more: object
    ) -> None:
        cases.append(Case(name, words, codes=codes, writes=WRITES, **more))  # type: ignore[arg-type]

    for n, variable in enumerate(RANKS):
        for m, value in enumerate(STRANGE):
            add(f"{variable}={value!a}", COMMANDS[(n + m) % 5], env={variable: value})
    for n, (variable, values) in enumerate(VARIABLES.items()):
        for m, value in enumerate(values):
            add(f"{variable}={value[:30]!a}", COMMANDS[(n + m) % 5], env={variable: value})
        if n % 2:
            add(f"{variable} is not set", COMMANDS[n % 5], env={variable: None})
    for name in ("HOME", "PATH", "USER", "LANG", "TERM"):
        add(f"{name} is not set", EVALUATE, env={name: None})
    for n, (variable, values) in enumerate(AT_START.items()):
        for m, value in enumerate(values):
            words = (STATUS, EXPORT, VERSION, EVALUATE)[(n + m) % 4]
            add(f"fresh: {variable}={value!a}", words, env={variable: value}, fresh=True)
    for n, (name, setup) in enumerate(streams().items()):
        for m, words in enumerate((STATUS, EVALUATE, ERROR, (*STATUS, "--json"), VERSION)):
            # the interpreter itself notices a closed stream when it starts
            fresh = "closed" in name or (n + m) % 3 == 0
            add(f"{name}: {words[0]}{' fresh' if fresh else ''}", words, STREAM, setup=setup, fresh=fresh,
                silent=True)  # fmt: skip
    for n, (name, setup) in enumerate(limits().items()):
        for m, words in enumerate((EVALUATE, TRAIN, SEARCH, EXPORT, LATENCY)):
            add(f"{name}: {words[0]}", words, FOUND, setup=setup, fresh=(n + m) % 7 == 0)
    for n, (name, setup) in enumerate(folders().items()):
        for m, words in enumerate((STATUS, EVALUATE, ("status",), TRAIN)):
            add(f"{name}: {' '.join(words[:2])}", words, MAYBE, setup=setup, fresh=(n + m) % 4 == 0,
                silent=True)  # fmt: skip
    for mask in (0o000, 0o777, 0o077, 0o177, 0o222):
        for words in (EXPORT, EVALUATE, TRAIN):
            add(
                f"umask {mask:03o}: {words[0]}",
                words,
                MAYBE,
                setup=functools.partial(os.umask, mask),
            )
    for n, module in enumerate(PLANTED):
        make = functools.partial(_plant, module)
        add(f"a planted {module}.py", (STATUS, EVALUATE)[n % 2], make=make, fresh=True)
    for module in ("yaml", "optuna", "torch"):
        make = functools.partial(_plant, module)
        words = (*SEARCH, "--workers", "2")
        add(f"a planted {module}.py, search --workers 2", words, make=make, fresh=True)
        words = (*EVALUATE, "--devices", "2")
        add(f"a planted {module}.py, evaluate --devices 2", words, make=make, fresh=True)
    for name, plant in rc_files().items():
        add(f"a planted {name}", (EVALUATE, TRAIN, LATENCY)[len(cases) % 3], make=plant,
            fresh=len(cases) % 3 == 0)  # fmt: skip
    for name, (make, env) in caches().items():
        words = (*LATENCY, "--backend", "compile")
        add(f"a native cache {name}", words, make=make, env=env)
        add(f"a native cache {name}, calibrate", EVALUATE, make=make, env=env)
    for name, number in (
        ("SIGHUP", signal.SIGHUP),
        ("SIGCHLD", signal.SIGCHLD),
        ("SIGPIPE", signal.SIGPIPE),
    ):
        setup = functools.partial(signal.signal, number, signal.SIG_IGN)
        for words in (EVALUATE, TRAIN):
            add(f"{name} is ignored: {words[0]}", words, setup=setup, fresh=words is TRAIN)
    return cases


def streams() -> dict[str, Callable[[], object]]:
    """What is done to standard streams, by name."""

    def closed(*numbers: int) -> Callable[[], object]:
        return lambda: [os.close(number) for number in numbers]

    def sent(path: str, *numbers: int, flags: int = os.O_WRONLY) -> Callable[[], object]:
        def change() -> None:
            file = os.open(path, flags)
            for number in numbers:
                os.dup2(file, number)

        return change

    def unread(number: int) -> Callable[[], object]:
        def change() -> None:
            reading, writing = os.pipe()
            os.dup2(writing, number)
            os.close(writing)
            os.close(reading)

        return change

    return {
        "stdout closed": closed(1),
        "stderr closed": closed(2),
        "stdin closed": closed(0),
        "all closed": closed(0, 1, 2),
        "stdout and stderr closed": closed(1, 2),
        "stdout full": sent("/dev/full", 1),
        "stderr full": sent("/dev/full", 2),
        "both full": sent("/dev/full", 1, 2),
        "stdout for reading": sent("/dev/null", 1, flags=os.O_RDONLY),
        "stderr for reading": sent("/dev/null", 2, flags=os.O_RDONLY),
        "stdin endless": sent("/dev/zero", 0, flags=os.O_RDONLY),
        "stdout unread": unread(1),
        "stderr unread": unread(2),
        "stdout is a folder": sent("/", 1, flags=os.O_RDONLY),
    }


def limits() -> dict[str, Callable[[], object]]:
    """Limits of the system, by name."""

    def limited(what: int, value: int) -> Callable[[], object]:
        return lambda: resource.setrlimit(what, (value, value))

    mib = 2**20
    found = {
        f"files of {size}": limited(resource.RLIMIT_FSIZE, size)
        # what it says goes into a file too
        for size in (4000, 100_000, mib)
    }
    # with fewer no interpreter is loaded
    found |= {f"{n} open files": limited(resource.RLIMIT_NOFILE, n) for n in (6, 10, 16, 30)}
    found |= {
        f"memory of {n} MiB": limited(resource.RLIMIT_AS, n * mib) for n in (1300, 1500, 2000)
    }
    found |= {f"a stack of {n} KiB": limited(resource.RLIMIT_STACK, n * 1024) for n in (256, 512)}
    found["no other processes"] = limited(resource.RLIMIT_NPROC, 0)
    found["no locked memory"] = limited(resource.RLIMIT_MEMLOCK, 0)
    found["lowest priority"] = functools.partial(os.nice, 19)
    return found


def folders() -> dict[str, Callable[[], object]]:
    """What is wrong with the working directory, by name."""

    def deleted() -> None:
        os.mkdir("gone")
        os.chdir("gone")
        os.rmdir("../gone")

    return {
        "a deleted working directory": deleted,
        "the root as working directory": lambda: os.chdir("/proc"),
    }


def _plant(module: str, place: Place) -> None:
    (place.folder / f"{module}.py").write_text(f"{place.python}\nraise SystemExit(0)\n")


def rc_files() -> dict[str, Callable[[Place], object]]:
    """Files that libraries look for in the working directory or at home, by name."""

    def write(name: str, text: str) -> Callable[[Place], object]:
        def plant(place: Place) -> None:
            path = place.folder / name
            path.parent.mkdir(parents=True, exist_ok=True)
            path.write_text(text.replace("{canary}", str(place.canary)))

        return plant

    code = "open('{canary}', 'w').close()\n"

    def repository(place: Place) -> None:
        subprocess.run(["git", "init", "-q", "."], cwd=place.folder, check=False)
        with open(place.folder / ".git" / "config", "a") as file:
            file.write(
                f"[core]\n\tfsmonitor = touch {place.canary}\n\tpager = touch {place.canary}\n"
            )

    return {
        "matplotlibrc": write("matplotlibrc", "backend: module://planted\n"),
        "matplotlibrc of nonsense": write("matplotlibrc", "\x00\xff: [:\n"),
        "setup.cfg": write("setup.cfg", "[x\n"),
        "pyproject.toml": write("pyproject.toml", "[x\n"),
        ".env": write(".env", "SPARSEVIT_WORKSPACE=/nowhere\n"),
        "pyvenv.cfg": write("pyvenv.cfg", "home = /nowhere\n"),
        "__main__.py": write("__main__.py", code),
        "sparsevit package": write("sparsevit/__init__.py", code),
        "mmdet package": write("mmdet/__init__.py", code),
        "torch package": write("torch/__init__.py", code),
        "encodings package": write("encodings/__init__.py", code),
        "git repository with a command": repository,
        ".gitconfig": write(".git/config", "[core\n"),
        "git HEAD of nonsense": write(".git/HEAD", "\x1b[31m\n"),
        "sitecustomize": write("sitecustomize.py", code),
        "a .pth file": write("x.pth", "import os; " + code),
        "alembic.ini": write("alembic.ini", "[x\n"),
        "logging.conf": write("logging.conf", "[x\n"),
        "hubconf.py": write("hubconf.py", code),
        "a Makefile": write("Makefile", "all:\n\ttouch {canary}\n"),
        ".pdbrc": write(".pdbrc", code),
        "conftest.py": write("conftest.py", code),
    }


def caches() -> dict[str, tuple[Callable[[Place], object], dict[str, str | None]]]:
    """Caches of native code that others could have filled, by name."""

    def cache(mode: int, fill: bool = True) -> Callable[[Place], object]:
        def make(place: Place) -> None:
            folder = place.folder / "out-cache"
            folder.mkdir()
            if fill:
                _plant_libraries(place)
            folder.chmod(mode)

        return make

    here = {"SPARSEVIT_CACHE": "{folder}/out-cache"}
    return {
        "that all may write": (cache(0o777), here),
        "that a group may write": (cache(0o770), here),
        "with a sticky bit": (cache(0o1777), here),
        "that is read only": (cache(0o500), here),
        "that is empty and open": (cache(0o777, fill=False), here),
        "that is a file": (lambda p: (p.folder / "out-cache").write_text("x"), here),
        "that is a link to itself": (
            lambda p: (p.folder / "out-cache").symlink_to("out-cache"),
            here,
        ),
        "without a home": (lambda p: None, {"HOME": None, "SPARSEVIT_CACHE": None}),
    }


_SOURCE = """
#include <fcntl.h>
#include <unistd.h>
__attribute__((constructor)) static void run(void) { close(open("%s", O_CREAT | O_WRONLY, 0600)); }
"""


def _plant_libraries(place: Place) -> None:
    """A library that runs when it is loaded, under the names that are looked for."""
    import shutil

    compiler = shutil.which("cc") or shutil.which("gcc")
    if compiler is None:
        return
    source = place.folder / "out-planted.c"
    library = place.folder / "out-planted.so"
    source.write_text(_SOURCE % place.canary)
    subprocess.run([compiler, "-shared", "-fPIC", "-o", library, source], check=True)
    for name in _library_names():
        target = place.folder / "out-cache" / name
        target.parent.mkdir(parents=True, exist_ok=True)
        shutil.copy(library, target)
        target.chmod(0o777)


@functools.cache
def _library_names() -> tuple[str, ...]:
    """Under which names a build would look for its libraries: those that it really makes."""
    code = (
        "import torch, pathlib, sparsevit.ops.native as native\n"
        "from sparsevit.ops.native import build\n"
        "for source in pathlib.Path(native.__file__).parent.glob('*.cpp'):\n"
        "    build.load(source)\n"
    )
    with tempfile.TemporaryDirectory() as folder:
        private = Path(folder, "cache")
        environment = os.environ | {"SPARSEVIT_CACHE": str(private)}
        subprocess.run([sys.executable, "-c", code], env=environment, check=True)
        return tuple(str(p.relative_to(private)) for p in private.rglob("*.so"))


def mutation(rng: random.Random) -> Case:
    """Several variables at once."""
    env: dict[str, str | None] = {}
    for _ in range(rng.choice([2, 3, 5])):
        variable = rng.choice([*VARIABLES, *RANKS])
        env[variable] = rng.choice([*VARIABLES.get(variable, STRANGE), None, *STRANGE[:3]])
    words = rng.choice(COMMANDS)
    return Case(f"several: {', '.join(env)}", words, None, FOUND, env=env, writes=WRITES)
