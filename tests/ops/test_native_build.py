"""Native code is compiled once, kept, and done without where it cannot be had."""

from __future__ import annotations

import logging
import os
import shutil
import subprocess
import sys
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import pytest

from sparsevit.ops.native import build, private

pytestmark = pytest.mark.skipif(
    sys.platform != "linux" or shutil.which("g++") is None, reason="no g++"
)
SOURCE = 'extern "C" int answer() { return 42; }'


@pytest.fixture
def load(tmp_path, monkeypatch):
    """A function that loads a source, as a process of its own would."""
    monkeypatch.setenv("SPARSEVIT_CACHE", str(tmp_path / "cache"))
    monkeypatch.delenv("CXX", raising=False)

    def load_source(text=SOURCE):
        path = tmp_path / "source.cpp"
        path.write_text(text, encoding="utf-8")
        return build.load.__wrapped__(path)

    return load_source


@pytest.fixture
def compilations(monkeypatch):
    calls = []
    run = subprocess.run

    def counting(command, **kwargs):
        calls.extend(word for word in command if word == "-c")
        return run(command, **kwargs)

    monkeypatch.setattr(subprocess, "run", counting)
    return calls


def test_it_is_compiled_once_and_again_when_the_source_changes(load, compilations):
    assert load().answer() == 42
    assert load().answer() == 42
    assert len(compilations) == 1
    assert load(SOURCE.replace("42", "43")).answer() == 43
    assert len(compilations) == 2


def test_it_is_compiled_again_when_a_header_beside_it_changes(load, compilations, tmp_path):
    header = tmp_path / "header.h"
    for answer in (42, 43):
        header.write_text(f"constexpr int ANSWER = {answer};", encoding="utf-8")
        text = '#include "header.h"\nextern "C" int answer() { return ANSWER; }'
        assert load(text).answer() == answer
    assert len(compilations) == 2


def test_another_cpu_gets_a_build_of_its_own(load, compilations, monkeypatch):
    load()
    monkeypatch.setattr(build, "_cpu", lambda: "flags : another")
    load()
    assert len(compilations) == 2


def test_nothing_but_the_library_is_left_in_the_folder(load, tmp_path):
    load()
    assert [path.suffix for path in (tmp_path / "cache").iterdir()] == [".so"]


def test_several_at_once(load):
    with ThreadPoolExecutor(4) as pool:
        assert [one.answer() for one in pool.map(lambda _: load(), range(4))] == [42] * 4


def test_a_cache_that_cannot_be_written(load, tmp_path, monkeypatch):
    (tmp_path / "file").touch()
    monkeypatch.setenv("SPARSEVIT_CACHE", str(tmp_path / "file" / "below"))
    assert load().answer() == 42


@pytest.mark.parametrize("variable", ["XDG_CACHE_HOME", "HOME"])
def test_where_it_is_kept(load, tmp_path, monkeypatch, variable):
    monkeypatch.delenv("SPARSEVIT_CACHE")
    monkeypatch.delenv("XDG_CACHE_HOME", raising=False)
    monkeypatch.setenv(variable, str(tmp_path))
    load()
    folder = tmp_path if variable == "XDG_CACHE_HOME" else tmp_path / ".cache"
    assert list((folder / "sparsevit").glob("source-*.so"))


@pytest.fixture
def planted(load, tmp_path):
    """A library of somebody else's in the place of ours; what it answers is 666."""
    assert load().answer() == 42
    ours = next((tmp_path / "cache").glob("*.so"))
    source = tmp_path / "other.cpp"
    source.write_text(SOURCE.replace("42", "666"))
    other = tmp_path / "other.so"
    subprocess.run(["g++", "-shared", "-fPIC", source, "-o", other], check=True)
    ours.unlink()
    other.chmod(0o600)
    return ours, other


class TestNothingOfOthersIsLoaded:
    @pytest.mark.parametrize("mode", [0o777, 0o757, 0o1777])
    def test_a_folder_that_others_can_write(self, load, planted, tmp_path, mode, caplog):
        ours, other = planted
        os.replace(other, ours)
        (tmp_path / "cache").chmod(mode)
        assert load().answer() == 42
        assert "others can write to" in caplog.text
        assert "SPARSEVIT_CACHE" in caplog.text

    def test_a_folder_above_that_others_can_write(self, load, planted, tmp_path, monkeypatch):
        ours, other = planted
        os.replace(other, ours)
        tmp_path.chmod(0o777)
        assert load().answer() == 42

    def test_a_folder_of_another_user(self, load, planted, monkeypatch, caplog):
        ours, other = planted
        os.replace(other, ours)
        user = os.getuid()
        monkeypatch.setattr(os, "getuid", lambda: user + 1)
        assert load().answer() == 42
        assert "belongs to another user" in caplog.text

    @pytest.mark.skipif(os.geteuid() != 0, reason="only root gives files away")
    def test_a_library_of_another_user(self, load, planted):
        ours, other = planted
        os.replace(other, ours)
        os.chown(ours, 12345, 12345)
        assert load().answer() == 42
        assert ours.stat().st_uid == 0

    def test_a_library_that_others_can_write(self, load, planted):
        ours, other = planted
        os.replace(other, ours)
        ours.chmod(0o666)
        assert load().answer() == 42

    def test_a_link(self, load, planted):
        ours, other = planted
        ours.symlink_to(other)
        assert load().answer() == 42
        assert not ours.is_symlink()

    def test_what_is_made_is_private_whatever_the_umask(self, load, tmp_path):
        before = os.umask(0)
        try:
            assert load().answer() == 42
        finally:
            os.umask(before)
        folder = tmp_path / "cache"
        assert folder.stat().st_mode & 0o777 == 0o700
        assert [path.stat().st_mode & 0o777 for path in folder.iterdir()] == [0o600]

    def test_without_a_home_nothing_is_left_in_the_working_directory(
        self, load, tmp_path, monkeypatch
    ):
        for name in ("SPARSEVIT_CACHE", "XDG_CACHE_HOME"):
            monkeypatch.delenv(name, raising=False)
        monkeypatch.setenv("HOME", "~")
        (tmp_path / "here").mkdir()
        monkeypatch.chdir(tmp_path / "here")
        assert load().answer() == 42
        assert not list((tmp_path / "here").iterdir())


class TestDoneWithout:
    def test_a_compiler_there_is_not(self, load, monkeypatch, caplog):
        monkeypatch.setenv("CXX", "no-such-compiler")
        with caplog.at_level(logging.INFO):
            assert load() is None
        assert "no C++ compiler" in caplog.text

    def test_code_that_does_not_compile(self, load, tmp_path, caplog):
        with caplog.at_level(logging.INFO):
            assert load("nonsense") is None
        assert "does not compile here" in caplog.text
        assert "nonsense" in caplog.text
        assert not list((tmp_path / "cache").iterdir())

    def test_a_library_that_does_not_load(self, load, caplog):
        with caplog.at_level(logging.INFO):
            assert load('extern "C" int gone(); extern "C" int answer() { return gone(); }') is None
        assert "gone" in caplog.text

    def test_a_compiler_that_hangs(self, load, tmp_path, monkeypatch, caplog):
        slow = tmp_path / "slow"
        slow.write_text("#!/bin/sh\nsleep 60\n", encoding="utf-8")
        slow.chmod(0o755)
        monkeypatch.setenv("CXX", str(slow))
        monkeypatch.setattr(build, "SECONDS", 0.2)
        with caplog.at_level(logging.INFO):
            assert load() is None
        assert "timed out" in caplog.text

    def test_a_user_who_does_not_want_it(self, load, monkeypatch, compilations):
        monkeypatch.setenv("SPARSEVIT_NATIVE", "off")
        assert load() is None
        assert not compilations


class TestTheCacheOfPytorchsCompiler:
    @pytest.fixture(autouse=True)
    def _folder(self, tmp_path, monkeypatch):
        monkeypatch.setenv("TORCHINDUCTOR_CACHE_DIR", str(tmp_path / "inductor"))

    def test_is_made_private(self, tmp_path):
        before = os.umask(0)
        try:
            private.keep_inductor_private()
        finally:
            os.umask(before)
        assert (tmp_path / "inductor").stat().st_mode & 0o777 == 0o700
        assert os.environ["TORCHINDUCTOR_CACHE_DIR"] == str(tmp_path / "inductor")

    @pytest.mark.parametrize("mode", [0o777, 0o1777, 0o757])
    def test_is_another_where_others_can_write(self, tmp_path, mode, caplog):
        (tmp_path / "inductor").mkdir()
        (tmp_path / "inductor").chmod(mode)
        private.keep_inductor_private()
        other = Path(os.environ["TORCHINDUCTOR_CACHE_DIR"])
        assert other != tmp_path / "inductor"
        assert other.stat().st_mode & 0o777 == 0o700
        assert "others can write to" in caplog.text

    def test_has_pytorchs_usual_name(self, monkeypatch):
        torchs = pytest.importorskip("torch._inductor.runtime.cache_dir_utils")
        monkeypatch.delenv("TORCHINDUCTOR_CACHE_DIR")
        assert str(private._inductor_folder()) == torchs.default_cache_dir()
