"""Options, streams, variables and limits that no one means: one message, exit code 2, no wait."""

from __future__ import annotations

import errno
import os
import subprocess
import sys

import pytest
import tiny

from sparsevit.cli import environment, trouble
from sparsevit.cli import main as cli
from sparsevit.cli.main import COMMANDS, load_command, one_screen
from sparsevit.cli.parse import image_size
from sparsevit.errors import UserError
from sparsevit.latency.execution import require_images

MANY = "9" * 20


def commands():
    """Every command by the words that call it."""
    for name in COMMANDS:
        command = load_command(name)
        inner = getattr(command, "commands", None) or {}
        yield from [([name, each], inner[each]) for each in inner] or [([name], command)]


def numeric_options():
    for words, command in commands():
        for param in command.params:
            if isinstance(getattr(param, "default", None), bool):
                continue
            if getattr(param, "min", None) is not None or getattr(param, "max", None) is not None:
                yield [*words, param.opts[0]]


@pytest.mark.parametrize("words", list(numeric_options()), ids=" ".join)
def test_every_number_has_a_range(capsys, words):
    for value in (MANY, f"-{MANY}", "nan", "inf", "²", "9" * 5000, ""):
        assert cli.main([*words, value]) == 2
        said = capsys.readouterr().err
        assert "Traceback" not in said
        assert words[-1] in said
        assert len(said.splitlines()) < 40


@pytest.mark.parametrize(
    "words", [["status", "--workspace", "a\0b"], ["latency", "a\0.py"], ["search", "--study", "\0"]]
)
def test_a_null_byte_is_refused_before_anything_runs(capsys, words):
    assert cli.main(words) == 2
    assert "null byte" in capsys.readouterr().err


@pytest.mark.parametrize(
    "words",
    [["status", "--workspace", ""], ["status", "--workspace="], ["status", "--workspace", " "]],
)
def test_an_empty_value_is_what_a_shell_makes_of_a_variable_that_is_not_set(capsys, words):
    assert cli.main(words) == 2
    assert "--workspace is empty" in capsys.readouterr().err


@pytest.mark.parametrize("text", ["²", "1²", "١٢", "9" * 5000, "-5", "1x", "x", "0", "1e3", " 32"])
def test_a_size_is_written_in_plain_digits(text):
    with pytest.raises(UserError, match="is not a size") as caught:
        image_size(text)
    assert len(caught.value.problem) < 200


@pytest.mark.parametrize(("batch", "side"), [(4, 100_000), (10**6, 672), (10**9, 32)])
def test_a_batch_beyond_the_memory_is_refused_with_an_estimate(batch, side):
    with pytest.raises(UserError, match=r"takes at least [\d,.]+ [GTP]B of memory, and .* free"):
        require_images(batch, (side, side), "timed")


def test_a_dataset_beyond_the_disk_is_refused_with_an_estimate(tmp_path):
    words = ["data", "make", tmp_path / "new", "--train", 10**6, "--img-size", 8192]
    done = tiny.run(*words)
    assert done.code == 2
    assert "TB on disk" in done.err
    assert not (tmp_path / "new").exists()


def test_a_message_fits_a_screen():
    assert one_screen("short") == "short"
    assert len(one_screen("x" * 10**6)) <= 1600
    assert len(one_screen("x\n" * 10**5).splitlines()) <= 24


@pytest.mark.parametrize(
    ("name", "value"),
    [
        ("RANK", "abc"),
        ("WORLD_SIZE", "0"),
        ("LOCAL_RANK", "-1"),
        ("MASTER_PORT", "99999"),
        ("SLURM_PROCID", "x"),
        ("OMPI_COMM_WORLD_RANK", "²"),
        ("LOCAL_WORLD_SIZE", ""),
    ],
)
def test_what_a_launcher_sets_must_be_what_it_sets(monkeypatch, name, value):
    monkeypatch.setenv(name, value)
    with pytest.raises(UserError, match=f"{name}="):
        environment.check_processes()
    assert environment.rank() == 0


def test_a_rank_that_is_none_matters_to_a_launcher_only(monkeypatch):
    monkeypatch.setenv("LOCAL_RANK", "abc")
    environment.settle()
    assert "LOCAL_RANK" not in os.environ
    with pytest.raises(UserError, match="LOCAL_RANK=abc"):
        environment.check_processes()
    environment._taken_out.clear()


def test_a_process_beyond_their_number_is_refused(monkeypatch):
    monkeypatch.setenv("RANK", "2")
    monkeypatch.setenv("WORLD_SIZE", "2")
    with pytest.raises(UserError, match="RANK=2 and WORLD_SIZE=2"):
        environment.check_processes()


@pytest.mark.parametrize(
    ("value", "left"),
    [
        ("abc", None),
        ("0", None),
        ("-5", None),
        ("²", None),
        (MANY, None),
        ("5", "40"),
        ("90", "90"),
    ],
)
def test_a_width_that_cannot_be_written_for_is_dropped(monkeypatch, value, left):
    monkeypatch.setenv("COLUMNS", value)
    environment.settle()
    assert os.environ.get("COLUMNS") == left


@pytest.mark.parametrize(
    ("given", "left"),
    [
        ({"_SPARSEVIT_COMPLETE": "complete_bash"}, {}),
        ({"_SPARSEVIT_COMPLETE": "nothing"}, {}),
        ({"_SPARSEVIT_COMPLETE": "source_x", "_TYPER_COMPLETE_ARGS": "x"}, {}),
        ({"_SPARSEVIT_COMPLETE": "\x1b[31m"}, {}),
        ({"_SPARSEVIT_COMPLETE": "complete_zsh", "COMP_WORDS": "x", "COMP_CWORD": "a"}, {}),
        *(
            (shell, {"_SPARSEVIT_COMPLETE"})
            for shell in (
                {"_SPARSEVIT_COMPLETE": "source_bash"},
                {"_SPARSEVIT_COMPLETE": "complete_bash", "COMP_WORDS": "x", "COMP_CWORD": "1"},
                {"_SPARSEVIT_COMPLETE": "complete_zsh", "_TYPER_COMPLETE_ARGS": "x"},
            )
        ),
        ({"FORCE_COLOR": "0"}, {}),
        ({"FORCE_COLOR": " "}, {}),
        ({"FORCE_COLOR": "1"}, {"FORCE_COLOR"}),
    ],
)
def test_a_shell_that_did_not_ask_is_not_answered(monkeypatch, given, left):
    asked = {"_SPARSEVIT_COMPLETE", "FORCE_COLOR"}
    for name in (*asked, "COMP_WORDS", "COMP_CWORD", "_TYPER_COMPLETE_ARGS"):
        monkeypatch.delenv(name, raising=False)
    for name, value in given.items():
        monkeypatch.setenv(name, value)
    environment.settle()
    assert asked & set(os.environ) == set(left)


@pytest.mark.parametrize(
    ("error", "says"),
    [
        (OSError(errno.ENAMETOOLONG, "File name too long", "a" * 5000), "File name too long: aaa"),
        (OSError(errno.EFBIG, "File too large"), "ulimit -f"),
        (OSError(errno.EMFILE, "Too many open files", "a"), "ulimit -n"),
        (BlockingIOError(errno.EAGAIN, "Resource temporarily unavailable"), "ulimit -u"),
        (RuntimeError("can't start new thread"), "ulimit -u"),
        (MemoryError(), "not enough memory"),
        (RuntimeError("[enforce fail] DefaultCPUAllocator: not enough memory: you tried"), "batch"),
        (RuntimeError("std::bad_alloc"), "batch"),
        (FileNotFoundError(errno.ENOENT, "No usable temporary directory found in []"), "TMPDIR"),
        (UnicodeEncodeError("utf-8", "a\ud800", 1, 2, "surrogates not allowed"), "no UTF-8 text"),
    ],
    ids=lambda value: type(value).__name__ if isinstance(value, Exception) else None,
)
def test_what_the_machine_refuses_is_said_in_words(error, says):
    problem, remedy = trouble.describe(error)
    assert says in f"{problem} {remedy}"
    assert len(problem) < 800


@pytest.mark.parametrize(
    "error", [FileNotFoundError(errno.ENOENT, "x", "a"), ValueError("x"), RuntimeError("shape")]
)
def test_a_bug_stays_one(error):
    assert trouble.describe(error) is None


SHELL = {
    "closed": ">&-",
    "full": ">/dev/full",
    "closed, with --json": "--json >&-",
    "full, with --json": "--json >/dev/full",
}


@pytest.mark.parametrize("how", SHELL)
def test_a_result_that_cannot_be_written_is_told_once(tmp_path, how):
    done = shell(f"status --workspace . {SHELL[how]}", tmp_path)
    assert done.returncode == 2
    assert done.stderr.count("Error") == 1
    assert "standard output" in " ".join(done.stderr.replace("│", " ").split())


def test_an_error_without_a_stderr_keeps_its_exit_code(tmp_path):
    assert shell("status --nonsense 2>&-", tmp_path).returncode == 2
    assert shell("status --nonsense 2>/dev/full", tmp_path).returncode == 2


def test_a_working_directory_that_was_removed_is_named(tmp_path):
    (tmp_path / "gone").mkdir()
    done = shell("status", tmp_path / "gone", before="rmdir ../gone;")
    assert done.returncode == 2
    assert "working directory" in done.stderr
    assert "Traceback" not in done.stderr


def shell(words, folder, before=""):
    return subprocess.run(
        f"{before} exec {sys.executable} -m sparsevit.cli.main {words}",
        shell=True,
        cwd=folder,
        executable="/bin/bash",
        capture_output=True,
        text=True,
        timeout=120,
        check=False,
    )
