"""The ``sparsevit`` command: which commands there are, and what becomes of an error.

A command is loaded when it is run. Help lists it from the table below, so that neither help nor a
mistyped command waits for torch.
"""

from __future__ import annotations

import atexit
import importlib
import os
import sys
import traceback
import warnings
from collections.abc import Sequence
from contextlib import suppress
from dataclasses import dataclass
from typing import Annotated, Any, NoReturn, cast

import typer
from rich.panel import Panel
from rich.text import Text

import sparsevit
from sparsevit import interruption
from sparsevit.cli import console, environment, run, trouble
from sparsevit.cli.commands import Command, Group
from sparsevit.errors import RunFailed, UserError, shortened
from sparsevit.interruption import Terminated
from sparsevit.report.terminal import visible
from sparsevit.secrets import masked

PHASES = "Phases"
MEASURE = "Measure"
EXPORT = "Export"
DATA = "Data"
WORKSPACE = "Workspace"
HELP = "Help"
PANELS = (PHASES, MEASURE, EXPORT, DATA, WORKSPACE, HELP)
"""The headings of the help, in the order in which they are shown."""

EXIT_FAILED = 1
EXIT_USER_ERROR = 2

MOST_LINES, MOST_CHARACTERS = 24, 1600
"""Of a message, so that a screen holds it."""

UsageError = cast(type[Exception], typer.BadParameter.__mro__[1])
"""The class of typer's usage errors; where typer keeps it depends on its version."""


@dataclass(frozen=True)
class Entry:
    """Where a command is found: ``attribute`` of ``module``, a function or a ``typer.Typer``."""

    module: str
    attribute: str
    panel: str
    help: str


COMMANDS: dict[str, Entry] = {
    "pretrain": Entry(
        "sparsevit.cli.pretrain",
        "pretrain",
        PHASES,
        "Train the dense model of a config.",
    ),
    "adapt": Entry(
        "sparsevit.cli.adapt",
        "adapt",
        PHASES,
        "Adapt it to sparsity, with new random ratios at every iteration.",
    ),
    "search": Entry(
        "sparsevit.cli.search",
        "search",
        PHASES,
        "Search for the best layerwise ratios within a latency interval.",
    ),
    "finetune": Entry(
        "sparsevit.cli.finetune",
        "finetune",
        PHASES,
        "Finetune at the ratios found.",
    ),
    "demo": Entry(
        "sparsevit.cli.demo",
        "demo",
        PHASES,
        "Run all phases on a small dataset that it generates.",
    ),
    "evaluate": Entry(
        "sparsevit.cli.evaluate",
        "evaluate",
        MEASURE,
        "Score a config, a checkpoint and a sparsity: by AP, mIoU, top-1 or NDS.",
    ),
    "predict": Entry(
        "sparsevit.cli.predict",
        "predict",
        MEASURE,
        "Draw what a model finds in images, videos or what a camera sees.",
    ),
    "latency": Entry(
        "sparsevit.cli.latency",
        "latency",
        MEASURE,
        "Time a backbone or a whole model, dense and sparse.",
    ),
    "calibrate": Entry(
        "sparsevit.cli.calibrate",
        "calibrate",
        MEASURE,
        "Measure how latency responds to each knob, so that searches can predict it.",
    ),
    "sensitivity": Entry(
        "sparsevit.cli.sensitivity",
        "sensitivity",
        MEASURE,
        "Measure how score and latency respond to each knob alone.",
    ),
    "data": Entry(
        "sparsevit.cli.data",
        "app",
        DATA,
        "Make the embedded dataset (COCO format), look at it, check your own.",
    ),
    "status": Entry(
        "sparsevit.cli.status",
        "status",
        WORKSPACE,
        "Show the runs of a workspace, with their inputs and results.",
    ),
    "report": Entry(
        "sparsevit.cli.report",
        "report",
        WORKSPACE,
        "Write what a workspace holds as one HTML page, to send to a colleague.",
    ),
    "doctor": Entry(
        "sparsevit.cli.doctor",
        "doctor",
        HELP,
        "Show what is installed, which ops and devices are used, and what is missing.",
    ),
    "convert": Entry(
        "sparsevit.cli.convert",
        "convert",
        EXPORT,
        "Write a model with pruned heads and neurons as a smaller dense one.",
    ),
    "export": Entry(
        "sparsevit.cli.export",
        "export",
        EXPORT,
        "Write the backbone for ONNX Runtime, OpenVINO or AOTInductor.",
    ),
    "export-config": Entry(
        "sparsevit.cli.export_config",
        "export_config",
        EXPORT,
        "Write a config with the sparsity in it, for plain mmdet tools to train and test.",
    ),
}


class Interrupted(Exception):
    """A signal came. Its own class: typer's versions make different things of KeyboardInterrupt."""


class LazyGroup(Group):
    """A group whose commands are imported when one is run."""

    def __init__(self, **kwargs: Any) -> None:
        super().__init__(**kwargs)
        for name, entry in sorted(COMMANDS.items(), key=lambda row: PANELS.index(row[1].panel)):
            self.commands[name] = Command(name=name, help=entry.help, rich_help_panel=entry.panel)

    def resolve_command(self, ctx: Any, args: list[str]) -> Any:
        name, command, rest = super().resolve_command(ctx, args)
        if name not in COMMANDS:
            return name, command, rest
        return name, load_command(name), rest

    def invoke(self, ctx: Any) -> Any:
        try:
            result = super().invoke(ctx)
            interruption.check()
        except (Exception, KeyboardInterrupt, SystemExit) as error:
            # what a library makes of a signal's exception is an interruption all the same
            if interruption.received() is None and not isinstance(error, KeyboardInterrupt):
                raise
            raise Interrupted from error
        return result


def load_command(name: str) -> Any:
    """Import the command ``name`` and make what typer runs of it."""
    entry = COMMANDS[name]
    found = getattr(importlib.import_module(entry.module), entry.attribute)
    if isinstance(found, typer.Typer):
        command = typer.main.get_command(found)
        command.name = name
        return command
    single = typer.Typer(add_completion=False, rich_markup_mode="rich")
    single.command(name, cls=Command)(found)
    return typer.main.get_command(single)


def _show_version(asked: bool) -> None:
    if asked:
        typer.echo(f"sparsevit {sparsevit.__version__}")
        raise typer.Exit()


app = typer.Typer(
    name="sparsevit",
    cls=LazyGroup,
    rich_markup_mode="rich",
    invoke_without_command=True,
    pretty_exceptions_enable=False,
    context_settings={"help_option_names": ["-h", "--help"]},
)


@app.callback()
def root(
    ctx: typer.Context,
    version: Annotated[
        bool,
        typer.Option(
            "--version", callback=_show_version, is_eager=True, help="Show the version and exit."
        ),
    ] = False,
) -> None:
    """Train, search and measure vision transformers that skip the windows that hold nothing.

    Start with [bold]sparsevit demo[/bold]: every phase on a small dataset that it generates.
    """
    if ctx.invoked_subcommand is None:
        typer.echo(ctx.get_help(), nl=False)


def main(arguments: Sequence[str] | None = None) -> int:
    """Run the command line and return its exit code.

    0: done. 1: it failed, or found what it was asked to look for (``doctor``). 2: the user can mend
    it. 130: interrupted by Ctrl-C; 143: by SIGTERM.

    Args:
        arguments: words after ``sparsevit``; those of the process by default.
    """
    is_program = arguments is None
    with interruption.remembered(last=is_program):
        try:
            code = _main(list(sys.argv[1:] if arguments is None else arguments))
        except (KeyboardInterrupt, Terminated):
            code = interruption.exit_code()  # it came again, while the first was told of
        if is_program and interruption.received() is not None:
            _leave(code)
    return code


def _main(args: list[str]) -> int:
    _be_a_good_neighbour()
    _silence_libraries()
    as_json = _wants_json(args)
    if not as_json:
        return _run(args, as_json)
    with console.quiet_stdout():
        return _run(args, as_json)


def _run(args: list[str], as_json: bool) -> int:
    try:
        environment.require_working_directory()
        code = app(args=args, prog_name="sparsevit", standalone_mode=False)
        # typer makes an exit code of one that comes while it reads the words
        interruption.check()
        console.flush_stdout()
    except UserError as error:
        return _fail("user", error.problem, error.remedy, EXIT_USER_ERROR, as_json)
    except RunFailed as error:
        return _fail("failed", error.problem, error.remedy, EXIT_FAILED, as_json)
    except UsageError as error:
        if type(error).__name__ == "NoArgsIsHelpError":
            return 0
        return _fail("usage", *_describe_usage(error), EXIT_USER_ERROR, as_json)
    except (Interrupted, KeyboardInterrupt, Terminated, typer.Abort):
        return _interrupted(as_json)
    except SystemExit as error:
        if error.code:
            run.let_the_first_speak()
        raise
    except BrokenPipeError:
        # the reader (head, less) has left: nothing more can be said, and nothing is wrong
        console.give_up_stdout()
        return EXIT_FAILED
    except console.StdoutError as error:
        console.give_up_stdout()
        return _fail("user", str(error), console.STDOUT_REMEDY, EXIT_USER_ERROR, as_json=False)
    except Exception as error:
        if isinstance(error, OSError) and error.filename is None:
            console.give_up_stdout()
        mistake = _overridden_mistake(error)
        described = (
            trouble.describe(error) if mistake is None else (mistake.problem, mistake.remedy)
        )
        if described is None:
            return _fail_internally(error, as_json)
        return _fail("user", *described, EXIT_USER_ERROR, as_json)
    return code if isinstance(code, int) and not isinstance(code, bool) else 0


def _leave(code: int) -> NoReturn:
    """End the process after a signal, which Python may turn into another exit code by itself."""
    atexit._run_exitfuncs()
    with suppress(OSError, ValueError):
        sys.stdout.flush()
        sys.stderr.flush()
    os._exit(code)


def _interrupted(as_json: bool) -> int:
    interruption.ignore_more()
    code = interruption.exit_code()
    if not run.is_first() or run.is_started():
        return code  # it is said once: by the first process, or by the one that started it
    problem, remedy = "Interrupted.", "Run the same command again to continue."
    return _fail("interrupted", problem, remedy, code, as_json)


def _overridden_mistake(error: Exception) -> UserError | None:
    """What the user gave with ``--set`` that led to an error, if that is what did."""
    mistakes = sys.modules.get("sparsevit.engine.mistakes")
    found: UserError | None = mistakes.overridden_mistake(error) if mistakes else None
    return found


def _fail_internally(error: Exception, as_json: bool) -> int:
    with suppress(OSError):
        sys.stderr.write(visible(masked("".join(traceback.format_exception(error)))))
    return _fail(
        "internal",
        masked(f"{type(error).__name__}: {error}"),
        "This is a bug, or a mistake that sparsevit does not recognise yet: please report it with "
        "the traceback above and the output of `sparsevit doctor`.",
        EXIT_FAILED,
        as_json,
    )


def _describe_usage(error: Any) -> tuple[str, str]:
    """The problem and the remedy of a usage error."""
    ctx = getattr(error, "ctx", None)
    path = ctx.command_path if ctx is not None else "sparsevit"
    return error.format_message(), f"`{path} --help` shows the arguments and options."


def _fail(kind: str, problem: str, remedy: str, code: int, as_json: bool) -> int:
    """Tell the user on stderr and, with ``--json``, also as a document on stdout."""
    run.let_the_first_speak()
    problem, remedy = one_screen(problem), one_screen(remedy)
    with suppress(OSError):  # nobody reads stderr: the exit code says it all
        _tell(kind, problem, remedy)
    if as_json and not console.document_written():
        document = {"type": kind, "problem": problem, "remedy": remedy, "exit_code": code}
        try:
            console.emit({"error": document}, True, lambda _: None)
        except (BrokenPipeError, console.StdoutError):
            console.give_up_stdout()
    return code


def one_screen(text: str) -> str:
    """A message that a terminal can show: of a longer one the middle is left out."""
    lines = text.splitlines()
    if len(lines) > MOST_LINES:
        lines = [*lines[: MOST_LINES - 3], "...", *lines[-2:]]
    return shortened("\n".join(lines), MOST_CHARACTERS)


def _tell(kind: str, problem: str, remedy: str) -> None:
    if kind == "interrupted":
        console.err.print(Text.assemble("\n", (problem, "yellow"), f" {remedy}"), highlight=False)
    else:
        body = Text.assemble(problem, (f"\n\n{remedy}" if remedy else "", "bold"))
        console.err.print(Panel(body, title="Error", title_align="left", border_style="red"))


def _wants_json(args: Sequence[str]) -> bool:
    words = list(args[: args.index("--")] if "--" in args else args)
    return "--json" in words and not {"--help", "-h", "--version"} & set(words)


def _be_a_good_neighbour() -> None:
    """Let OpenMP's threads wait less busily, before torch is imported and reads this.

    By default they spin for milliseconds. On an idle machine nobody notices; where something else
    runs, a training iteration of the demo took 4.3 s, and takes 1 s so.
    """
    os.environ.setdefault("GOMP_SPINCOUNT", "10000")


def _silence_libraries() -> None:
    """Keep the warnings that torch and OpenMMLab raise about themselves off the user's terminal.

    ``python -W`` or PYTHONWARNINGS brings them back.
    """
    os.environ.setdefault("TORCH_CPP_LOG_LEVEL", "ERROR")
    if sys.warnoptions:
        return
    warnings.filterwarnings("ignore", module=r"(?!sparsevit\b)")


if __name__ == "__main__":
    sys.exit(main())
