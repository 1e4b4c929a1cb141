"""The password of a storage is shown and kept nowhere."""

from __future__ import annotations

import json
import shlex
import sys

import pytest
import tiny
import torch

from sparsevit import secrets
from sparsevit.errors import UserError
from sparsevit.latency.execution import Execution
from sparsevit.phases.searching.plan import SearchPlan
from sparsevit.search.options import SearchOptions
from sparsevit.search.storage import shown_url
from sparsevit.search.study import open_study
from sparsevit.secrets import masked
from sparsevit.workspace import provenance

SECRET = "hunter2"
URLS = [
    "postgresql://me:hunter2@host:5432/studies",
    "postgresql+psycopg://me:hunter2@host/db?sslmode=require",
    "mysql+pymysql://:hunter2@host/db",
    "postgresql://me:hunter2/hunter2@host/db",
    "postgresql://me:/hunter2@host/db",
    "postgresql://me:hunter2@hunter2@host/db",
    "postgresql://me:hunter2?hunter2@host/db",
    "postgresql://me:hunter2#hunter2@host/db",
    "postgresql://me:hunter2:hunter2@host/db",
    "postgresql://me:hunter2%40%2F@host/db",
    "postgresql://me:a%2Fhunter2@host/db",
    "postgresql://host/db?user=me&password=hunter2",
    "postgresql://host:5432/db?password=hunter2@x",
    "postgresql://me@host/db?password=hunter2@x",
    "postgresql://host/db?pass%77ord=hunter2",
    "postgresql:///db?host=/run&PASSWORD=hunter2",
    "mysql://host/db?passwd=hunter2;user=me",
    "mssql+pyodbc:///?odbc_connect=DRIVER%3Dx%3BPWD%3Dhunter2",
    "sqlite+pysqlcipher://:hunter2@/file.db?cipher=aes",
    "sqlite:///file.db?key=hunter2",
    "redis://:hunter2@host/0",
    "postgresql://me:hunter2",
    "postgresql://me:hunter2/db?sslmode=require",
    "postgresql://me:hunter2@[::1]:5432/db",
    "weird+x.y-z://me:hunter2@host",
    "postgres:me:hunter2@host/db",
    "postgresql:/me:hunter2@host/db",
    "http://me:hunter2@proxy:3128/x?token=hunter2",
]


@pytest.fixture(autouse=True)
def _nothing_known(monkeypatch):
    monkeypatch.setattr(secrets, "_known", {})


@pytest.mark.parametrize("url", URLS)
def test_no_password_of_a_url_is_shown(url, monkeypatch):
    assert SECRET not in masked(f"The storage {url} cannot be opened: '{url}'.")
    assert SECRET not in str(UserError(f"{url}: no", f"Try {url}"))
    for words in (["--storage", url], [f"--storage={url}"]):
        monkeypatch.setattr(sys, "argv", ["sparsevit", "search", *words])
        shown = provenance.command_line()
        assert SECRET not in shown
        assert shlex.split(shown)[1] == "search"
    if "://" in url:
        assert SECRET not in shown_url(url)
        assert SECRET not in json.dumps(SearchOptions(pareto=True, storage=url).to_dict())


@pytest.mark.parametrize("url", [u for u in URLS if "://" in u and "http" not in u])
def test_no_password_is_in_the_error_of_a_storage_that_cannot_be_opened(url, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    monkeypatch.setenv("PGCONNECT_TIMEOUT", "1")
    said = ""
    try:
        open_study(url.replace("host", "127.0.0.1"), "x")
    except UserError as error:
        said = str(error)
    assert SECRET not in said


def test_a_password_with_a_space_is_masked_in_a_command_line(monkeypatch):
    url = "postgresql://me:two hunter2@host/db"
    monkeypatch.setattr(sys, "argv", ["sparsevit", "search", "--storage", url])
    assert SECRET not in provenance.command_line()
    assert SECRET not in shown_url(url)
    # and from then on in any text
    assert SECRET not in masked(f"cannot open {url}")


def test_a_driver_that_shows_a_part_of_the_url_shows_no_password():
    shown_url("postgresql://me:hunter2%40@host/db")
    assert masked("could not translate host name 'hunter2@'") == (
        "could not translate host name '***'"
    )
    assert masked("connection failed: password='a b' host=x") == (
        "connection failed: password=*** host=x"
    )


@pytest.mark.parametrize(
    "text",
    [
        "sqlite:////home/me@work/a:b.db",
        "journal:////home/me@work/study.log",
        "postgresql://me@host:5432/db?sslmode=require&connect_timeout=3",
        "redis://localhost:6379/0, postgresql://[::1]:5432/db, sqlite:///:memory:, mysql://host:3306",
        "https://github.com/open-mmlab/mmdetection",
        "work_dirs/a@b: 12 of 13 images, 14:32:11",
        "me@host.org: see http://example.com/a?b=c",
        "The config's key train_dataloader.batch_size has no value.",
    ],
)
def test_what_has_no_password_stays_as_it_is(text):
    assert masked(text) == text


def test_a_search_keeps_the_password_of_its_storage_nowhere(pretrained, tmp_path):
    url = f"sqlite:///{tmp_path}/study.db?password=hunter2"
    words = ("--storage", url, "--workspace", pretrained)
    done = tiny.run("search", *tiny.SEARCH, *words, "--json")
    shown = tiny.run("search", "--show", *words)
    told = tiny.run("status", "--workspace", pretrained, "--json")
    assert done.code == shown.code == told.code == 0, done.err + shown.err
    assert "password=***" in told.out
    for each in (done, shown, told):
        assert SECRET not in each.out + each.err
    for name, content in tiny.files(pretrained).items():
        assert SECRET.encode() not in content, name


def test_the_plan_of_a_worker_has_no_password(tmp_path):
    options = SearchOptions(pareto=True, storage="postgresql://me:hunter2@host/db")
    execution = Execution("backbone", "eager", "fp32", (64, 64), 1, torch.device("cpu"))
    SearchPlan(options, execution, "a.pth", "0" * 64, "work_dirs").write(tmp_path / "plan.json")
    assert SECRET not in (tmp_path / "plan.json").read_text()
    again = SearchPlan.read(tmp_path / "plan.json", "postgresql://me:hunter2@host/db")
    assert again.storage == options.storage


@pytest.mark.parametrize("text", ["x" * 200_000, "a:" * 100_000, "://" * 50_000, "pwd='" * 50_000])
def test_a_long_text_is_masked_in_time_that_grows_with_its_length(text):
    # the square of it would take minutes
    assert masked(text)
