"""Processes that a command starts import no module from the working directory.

Those of a search's workers: tests/cli/test_search_results.py.
"""

from __future__ import annotations

import subprocess
import sys

import tiny

from sparsevit.processes import module_command, module_environment


def test_a_module_runs_as_with_m_but_for_the_working_directory(hostile, tmp_path, monkeypatch):
    beside = tmp_path / "beside"
    beside.mkdir()
    (beside / "mine.py").write_text(
        "import sys, json, optuna, yaml\nprint(json.dumps([__name__, sys.argv[1:], sys.path[0]]))\n"
    )
    monkeypatch.syspath_prepend(str(beside))
    command = module_command("mine", "--a", "b c")
    done = subprocess.run(command, env=module_environment(), capture_output=True, text=True)
    assert done.stdout == f'["__main__", ["--a", "b c"], "{beside}"]\n', done.stderr
    assert not (hostile / "was-run").exists()


def test_processes_of_devices_do_not(hostile, workspace):
    script = (
        "import sys; sys.path.remove(''); from sparsevit.cli.main import main; sys.exit(main())"
    )
    words = ("evaluate", "--workspace", workspace, "--eval-images", 2, "--devices", 2, "--json")
    done = subprocess.run(
        [sys.executable, "-c", script, *map(str, words)],
        env=tiny.user_environment(),
        capture_output=True,
        text=True,
        timeout=280,
    )
    assert done.returncode == 0, done.stderr
    assert not (hostile / "was-run").exists()
