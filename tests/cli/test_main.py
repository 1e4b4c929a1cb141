"""The command line's frame: help, mistakes, and what an error looks like from outside."""

from __future__ import annotations

import errno
import json
import subprocess
import sys
import types

import pytest

import sparsevit
from sparsevit.cli import console
from sparsevit.cli import main as cli
from sparsevit.cli.options import ConfigArgument, JsonOption, Launcher, LauncherOption, SetOption
from sparsevit.errors import UserError

HEAVY = ("torch", "mmdet", "mmengine", "mmcv", "optuna", "matplotlib", "numpy")


@pytest.fixture
def register(monkeypatch):
    """Make a function a command of the real application, loaded from a module as all are."""

    def add(function, name="dummy"):
        module = types.ModuleType("dummy_command_module")
        module.dummy = function
        monkeypatch.setitem(sys.modules, module.__name__, module)
        entry = cli.Entry(module.__name__, "dummy", cli.PHASES, "A dummy.")
        monkeypatch.setitem(cli.COMMANDS, name, entry)

    return add


def run_python(code: str) -> subprocess.CompletedProcess[str]:
    return subprocess.run(
        [sys.executable, "-c", code], capture_output=True, text=True, timeout=60, check=False
    )


def test_help_lists_every_command_and_imports_nothing_heavy():
    done = run_python(
        "import sys\n"
        "from sparsevit.cli.main import main, COMMANDS\n"
        "code = main(['--help'])\n"
        f"print('LOADED', [name for name in {HEAVY!r} if name in sys.modules])\n"
        "print('COMMANDS', *COMMANDS)\n"
        "sys.exit(code)"
    )
    assert done.returncode == 0, done.stderr
    text, _, rest = done.stdout.partition("LOADED ")
    assert rest.splitlines()[0] == "[]"
    for name in rest.splitlines()[1].split()[1:]:
        assert name in text


def test_help_shows_the_panels_in_their_order(capsys):
    assert cli.main(["--help"]) == 0
    text = capsys.readouterr().out
    used = {entry.panel for entry in cli.COMMANDS.values()}
    places = [text.index(f"─ {panel} ─") for panel in cli.PANELS if panel in used]
    assert places == sorted(places)


def test_no_arguments_show_the_help(capsys):
    assert cli.main([]) == 0
    assert "Usage: sparsevit" in capsys.readouterr().out


@pytest.mark.parametrize("name", list(cli.COMMANDS))
def test_help_of_each_command_imports_nothing_heavy(name):
    done = run_python(
        "import sys\n"
        "from sparsevit.cli.main import main\n"
        f"code = main([{name!r}, '--help'])\n"
        f"print('LOADED', [name for name in {HEAVY!r} if name in sys.modules])\n"
        "sys.exit(code)"
    )
    assert done.returncode == 0, done.stderr
    assert done.stdout.splitlines()[-1] == "LOADED []"
    assert f"sparsevit {name}" in done.stdout


def test_version_is_the_packages(capsys):
    assert cli.main(["--version"]) == 0
    assert capsys.readouterr().out == f"sparsevit {sparsevit.__version__}\n"


def test_a_mistyped_command_is_answered_with_the_one_that_was_meant(capsys):
    assert cli.main(["doctr"]) == 2
    assert "Did you mean 'doctor'?" in capsys.readouterr().err


@pytest.mark.parametrize(
    "arguments",
    [["--nonsense"], ["dummy", "--nonsense"], ["dummy", "--launcher", "ssh"], ["dummy", "a", "b"]],
)
def test_wrong_usage_exits_with_2_and_one_message_on_stderr(register, capsys, arguments):
    def dummy(config: ConfigArgument = None, launcher: LauncherOption = Launcher.none) -> None:
        raise AssertionError("must not run")

    register(dummy)
    assert cli.main(arguments) == 2
    captured = capsys.readouterr()
    assert captured.out == ""
    assert "--help" in captured.err
    assert "Traceback" not in captured.err


def test_a_command_gets_what_was_typed(register, capsys):
    def dummy(config: ConfigArgument = None, overrides: SetOption = None) -> None:
        print(config, overrides)

    register(dummy)
    assert cli.main(["dummy", "a.py", "--set", "x=1", "--set", "y=[2]"]) == 0
    assert capsys.readouterr().out == "a.py ['x=1', 'y=[2]']\n"


def test_a_user_error_shows_problem_and_remedy_without_traceback(register, capsys):
    def dummy() -> None:
        raise UserError("There is no file [a].py.", "Give one that exists.")

    register(dummy)
    assert cli.main(["dummy"]) == 2
    captured = capsys.readouterr()
    assert "There is no file [a].py." in captured.err
    assert "Give one that exists." in captured.err
    assert "Traceback" not in captured.err
    assert captured.out == ""


def test_an_error_under_json_is_one_document_on_stdout(register, capfd):
    def dummy(as_json: JsonOption = False) -> None:
        print("chatter of a library")
        raise UserError("Wrong.", "Right it.")

    register(dummy)
    assert cli.main(["dummy", "--json"]) == 2
    captured = capfd.readouterr()
    assert json.loads(captured.out) == {
        "error": {"type": "user", "problem": "Wrong.", "remedy": "Right it.", "exit_code": 2}
    }
    assert "chatter of a library" in captured.err


def test_wrong_usage_under_json_is_one_document_too(capfd):
    assert cli.main(["doctor", "--nonsense", "--json"]) == 2
    assert json.loads(capfd.readouterr().out)["error"]["type"] == "usage"


def test_an_error_after_the_result_adds_no_second_document(register, capfd):
    def dummy(as_json: JsonOption = False) -> None:
        console.emit({"value": 1}, as_json, str)
        raise UserError("Too late.")

    register(dummy)
    assert cli.main(["dummy", "--json"]) == 2
    assert json.loads(capfd.readouterr().out) == {"value": 1}


def test_an_interrupt_says_how_to_go_on_and_exits_with_130(register, capsys):
    def dummy() -> None:
        raise KeyboardInterrupt

    register(dummy)
    assert cli.main(["dummy"]) == 130
    message = " ".join(capsys.readouterr().err.split())
    assert message == "Interrupted. Run the same command again to continue."


def test_a_bug_shows_its_traceback_and_exits_with_1(register, capfd):
    def dummy(as_json: JsonOption = False) -> None:
        raise ZeroDivisionError("by zero")

    register(dummy)
    assert cli.main(["dummy", "--json"]) == 1
    captured = capfd.readouterr()
    assert "Traceback" in captured.err
    assert json.loads(captured.out)["error"]["type"] == "internal"


def test_a_full_disk_is_the_users_to_mend(register, capsys):
    def dummy() -> None:
        raise OSError(errno.ENOSPC, "No space left on device", "work_dirs/a.pth")

    register(dummy)
    assert cli.main(["dummy"]) == 2
    message = capsys.readouterr().err
    assert "No space left on device: work_dirs/a.pth" in message
    assert "Traceback" not in message


def test_a_group_alone_shows_its_help(capsys):
    assert cli.main(["data"]) == 0
    captured = capsys.readouterr()
    assert "Usage: sparsevit data" in captured.out
    assert captured.err == ""


def test_a_reader_that_leaves_early_is_no_error():
    done = subprocess.run(
        f"set -o pipefail; {sys.executable} -m sparsevit.cli.main --help | true",
        shell=True,
        executable="/bin/bash",
        capture_output=True,
        text=True,
        timeout=60,
        check=False,
    )
    assert "Traceback" not in done.stderr
    assert "BrokenPipe" not in done.stderr


def test_warnings_of_libraries_stay_off_the_terminal_and_ours_do_not():
    done = run_python(
        "import warnings\n"
        "from sparsevit.cli.main import main\n"
        "main(['--version'])\n"
        "warnings.warn_explicit('old api', FutureWarning, 'a.py', 1, module='torch.cuda')\n"
        "warnings.warn_explicit('look here', UserWarning, 'b.py', 1, module='sparsevit.search')\n"
    )
    assert "look here" in done.stderr
    assert "old api" not in done.stderr
