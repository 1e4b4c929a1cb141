"""The page of a workspace: all that is in it, nothing that acts; what cannot be read is told."""

from __future__ import annotations

import json
import os
import re
import shutil
import subprocess
from html.parser import HTMLParser
from pathlib import Path

import pytest
import tiny
from PIL import Image

from sparsevit.errors import UserError
from sparsevit.latency.predictor import Calibration, HeldOut
from sparsevit.phases.demo import DemoRow
from sparsevit.phases.report import report
from sparsevit.report import page
from sparsevit.search.front import Reference
from sparsevit.search.loop import search
from sparsevit.search.options import SearchOptions
from sparsevit.search.read import keep_references
from sparsevit.search.sensitivity import Response, Sensitivity
from sparsevit.sparsity import Space
from sparsevit.tasks import TASKS
from sparsevit.workspace import Workspace
from sparsevit.workspace.kept import Kept

SECTIONS = (
    *("Results", "Runs", "Training", "Search", "Sensitivity", "Latency", "Pictures"),
    "Versions and machine",
)
SPACE = Space.staged((2, 2), prefix="backbone.stages")
HOW = {
    "scope": "backbone",
    "backend": "eager",
    "precision": "fp32",
    "img_size": [64, 64],
    "batch_size": 2,
    "device": "cpu",
}
BROWSER = next(
    filter(None, map(shutil.which, ("chromium", "chromium-browser", "google-chrome"))), None
)
VOID = {"meta", "img", "br", "hr", "link", "input"}
HOSTILE = (
    '</td><script src="http://evil.test/x.js">alert(1)</script><img src=x onerror=a()>\x1b[31m'
)


class Read(HTMLParser):
    """What is in a page, and whether its tags are closed in their order."""

    def __init__(self, content: str) -> None:
        super().__init__()
        self.tags: list[tuple[str, dict[str, str]]] = []
        self.texts: dict[str, list[str]] = {}
        self._open: list[str] = []
        self.feed(content)
        self.close()
        assert self._open == []

    def handle_starttag(self, tag, attributes):
        self.tags.append((tag, dict(attributes)))
        if tag not in VOID:
            self._open.append(tag)

    def handle_startendtag(self, tag, attributes):
        self.tags.append((tag, dict(attributes)))

    def handle_endtag(self, tag):
        assert self._open.pop() == tag

    def handle_data(self, data):
        self.texts.setdefault(self._open[-1] if self._open else "", []).append(data)

    def of(self, *tags):
        return [attributes for tag, attributes in self.tags if tag in tags]

    @property
    def text(self):
        shown = (data for tag, found in self.texts.items() if tag != "style" for data in found)
        return " ".join(" ".join(shown).split())


def read(path: Path) -> Read:
    return Read(path.read_text(encoding="utf-8"))


def log(folder: Path, rows: list[dict]) -> None:
    path = folder / "20260502_115000" / "vis_data" / "scalars.json"
    path.parent.mkdir(parents=True)
    path.write_text("".join(json.dumps(row) + "\n" for row in rows), encoding="utf-8")


def demo_rows(task) -> list[dict]:
    scores = {task.figure(name): 0.25 for name in task.headlines}
    key = task.whole_key
    return [
        DemoRow(name, {"a.0": r}, ms, 20 / ms, {f"{key}_ms": 3 * ms, f"{key}_speedup": 1.5}, scores)
        .figures()
        for name, r, ms in (("dense", 0.0, 20.0), ("searched and finetuned", 0.5, 12.5))
    ]  # fmt: skip


def make(path: Path) -> Path:
    """A workspace with a run of each kind, whose results are made up."""
    ws = Workspace.open(path)
    detection = TASKS["detection"]
    dense, half = SPACE.dense(), SPACE.uniform(0.5)
    scores = dict.fromkeys(detection.headlines, 0.4321)
    with ws.run("pretrain", {"config": "a.py", "seed": 0}) as run:
        steps = [{"loss": 4.0 / n, "step": 10 * n} for n in range(1, 41)]
        log(run.directory, [*steps, {f"dense/{detection.metric}": 0.4321, "step": 400}])
        run.update(metrics={"after": {"dense": scores}, "loss": 0.1, "split": "val"})
    options = SearchOptions(max_ms=55, min_ms=20, trials=6, sampler="random")
    with ws.run("search", {**options.to_dict(), **HOW, "metric": detection.metric}) as run:
        file = run.directory / "study.db"
        found = search(
            SPACE,
            lambda configuration: 60 - 50 * configuration.mean(),
            lambda configuration: 40 - configuration["backbone.stages.0"],
            SearchOptions(**{**vars(options), "storage": str(file)}),
        )
        keep_references(file, options.studies[0], [Reference("dense", dense, 60.0, 43.2)])
        Image.new("RGB", (40, 30), "red").save(run.directory / "search.png")
        run.update(
            metrics={
                "metric": detection.metric,
                "score": found.best.score,
                "latency_ms": 31.25,
                "dense_ms": 60.0,
                "sparsity": half.to_dict(),
            },
            outputs={"plot": "search.png"},
        )
    with ws.run("finetune", {"config": "a.py", "sparsity": half.to_dict()}) as run:
        run.update(metrics={"after": {"sparse": scores}, "split": "val"})
    with ws.run("sensitivity", HOW) as run:
        responses = tuple(
            Response(knob, 0.5, half, {**scores, detection.metric: 39.0}, 45.0) for knob in dense
        )
        first = Response(None, 0.0, dense, {**scores, detection.metric: 43.2}, 60.0)
        file = run.directory / "sensitivity.json"
        file.write_text(json.dumps(Sensitivity(first, responses, 8, "measured").to_dict()))
        metrics = {"metric": detection.metric, "dense_ms": 60.0}
        run.update(metrics=metrics, outputs={"sensitivity": file})
    key = {**HOW, "device_name": "A processor", "threads": 2}
    with ws.run("calibrate", key) as run:
        table = ((0.0, 0.0), (0.5, -7.25))
        made = Calibration(
            *(key, 60.0, dict.fromkeys(dense, table), (HeldOut(half, 40.0, 41.0, 0.1),)),
            *(0.02, 0.03, 0.05, 9, 12.0, "2026-05-02T11:50:00"),
        )
        file = Kept(path / "calibrations").write(key, made.to_dict())
        run.update(metrics={"dense_ms": 60.0}, outputs={"calibration": file})
    with ws.run("demo", {"short": True}) as run:
        Image.new("RGBA", (3000, 1500), "blue").save(run.directory / "kept_windows.png")
        run.update(metrics={"rows": demo_rows(detection)}, outputs={"picture": "kept_windows.png"})
    return path


@pytest.fixture(scope="module")
def made(tmp_path_factory):
    """Nothing may change it."""
    return make(tmp_path_factory.mktemp("report") / "ws")


@pytest.fixture
def ws(made, tmp_path):
    return Path(shutil.copytree(made, tmp_path / "ws"))


@pytest.fixture
def little(tmp_path):
    """A workspace with one run, which is reported in no time."""
    with Workspace.open(tmp_path / "ws").run("evaluate", {"seed": 0}):
        pass
    return tmp_path / "ws"


@pytest.fixture(scope="module")
def written(made, tmp_path_factory):
    result = report(made, tmp_path_factory.mktemp("page") / "page.html")
    return result, read(result.file)


def tree(folder: Path) -> dict[str, tuple[int, bytes]]:
    return {
        str(path.relative_to(folder)): (path.stat().st_mtime_ns, path.read_bytes())
        for path in folder.rglob("*")
        if path.is_file()
    }


def keep(ws: Path, *phases: str) -> None:
    path = ws / "workspace.json"
    document = json.loads(path.read_text(encoding="utf-8"))
    document["phases"] = {phase: document["phases"][phase] for phase in phases}
    path.write_text(json.dumps(document), encoding="utf-8")


def change(ws: Path, phase: str, **fields) -> None:
    path = ws / "workspace.json"
    document = json.loads(path.read_text(encoding="utf-8"))
    document["phases"][phase]["runs"][-1].update(fields)
    path.write_text(json.dumps(document), encoding="utf-8")


# --- what is in it --------------------------------------------------------------------------------


def test_every_section_is_there_and_the_contents_lead_to_it(written):
    result, page = written
    assert result.sections == SECTIONS
    assert result.unread == ()
    assert result.runs == 6
    assert page.texts["h2"] == list(SECTIONS)
    anchors = {attributes["id"] for attributes in page.of("section")}
    assert [link["href"] for link in page.of("a")] == [
        f"#{s.lower().replace(' ', '-')}" for s in SECTIONS
    ]
    assert {link["href"][1:] for link in page.of("a")} == anchors


@pytest.mark.parametrize(
    "said",
    [
        *("dense", "searched", "finetuned", "0.432", "31.25", "60.00", "at 0.5 0.5", "on val"),
        *("Search within 20 to 55 ms", "Compared with dense and uniform", "43.2"),
        *("Held-out configurations", "Accepted:", "-7.25", "A processor", "backbone, 2 x 64x64"),
        *("change from dense (43.2), on 8 images", "-4.20", "-15.0", "1.60x", "searched: 0.5"),
        *("torch", "sparsevit", "a.py", "loss", "iteration", "latency, ms"),
    ],
)  # fmt: skip
def test_what_was_recorded_is_told(written, said):
    assert said in written[1].text


def test_every_figure_stands_beside_the_command_that_made_it(written):
    result, page = written
    figures = page.of("figure")
    # loss and score, the front, three of sensitivity, a picture
    assert len(figures) == 7
    assert len(page.of("svg")) == 6
    made = re.findall(
        r'<p class="made"><code>([^<]+)</code> (\w+ run-001), finished', result.file.read_text()
    )
    assert {name for _, name in made} == {
        *("pretrain run-001", "search run-001", "sensitivity run-001"),
        *("calibrate run-001", "demo run-001"),
    }
    assert all(command for command, _ in made)


def test_a_large_picture_is_scaled_down(written):
    (picture,) = written[1].of("img")
    assert (picture["width"], picture["height"]) == ("1400", "700")
    assert picture["src"].startswith("data:image/jpeg;base64,")
    assert len(picture["src"]) < 100_000


@pytest.mark.parametrize("name", TASKS)
def test_each_task_has_its_own_scores(name, tmp_path):
    task = TASKS[name]
    scores = dict.fromkeys(task.headlines, 0.625 * 100 / task.points)
    with Workspace.open(tmp_path / "ws").run("demo", {}) as run:
        run.update(metrics={"rows": demo_rows(task)})
    with Workspace.open(tmp_path / "ws").run("evaluate", {"split": "test"}) as run:
        run.update(metrics=scores)
    with Workspace.open(tmp_path / "ws").run("search", {}) as run:
        run.update(metrics={"metric": task.metric, "score": 62.5})
    result = report(tmp_path / "ws")
    page = read(result.file)
    assert f"{task.whole} ms" in page.texts["th"]
    for metric, heading in task.headlines.items():
        assert page.texts["th"].count(heading) == 2
        assert task.shown(metric, scores[metric]) in page.texts["td"]
    # of the search, in the same unit
    assert page.texts["td"].count(task.shown(task.metric, scores[task.metric])) >= 2


def test_a_method_without_ratios_or_pictures_has_its_runs(tmp_path):
    with Workspace.open(tmp_path / "ws").run("anything", {"keep": {"a": 0.5, "b": 1}}) as run:
        run.update(
            metrics={
                "cost": {"parameters": 1e6, "of_parameters": 2e6, "gmacs": 1.0, "of_gmacs": 2.0}
            }
        )
    page = read(report(tmp_path / "ws").file)
    assert "1 of 2 M parameters" in page.text
    assert "0.5 1 (a, b)" in page.text
    assert (
        "The workspace has nothing for: results, training, search, sensitivity, latency, pictures."
        in page.text
    )


def test_what_failed_or_still_runs_is_told(tmp_path):
    with pytest.raises(RuntimeError), Workspace.open(tmp_path / "ws").run("adapt", {}):
        raise RuntimeError("no <memory>")
    with Workspace.open(tmp_path / "ws").run("search", {}):
        result = report(tmp_path / "ws")
    text = read(result.file).text
    assert "2 runs: 1 failed, 1 running" in text
    assert "no <memory>" in text
    assert "search was still running when this was written." in text


def test_of_many_trainings_the_newest_are_drawn(tmp_path, monkeypatch):
    monkeypatch.setattr("sparsevit.phases.report._MOST_CURVES", 2)
    for seed in range(4):
        with Workspace.open(tmp_path / "ws").run("pretrain", {"seed": seed}) as run:
            log(run.directory, [{"loss": 1.0, "step": 1}])
    page = read(report(tmp_path / "ws").file)
    assert len(page.of("svg")) == 2
    assert "2 earlier trainings are not drawn." in page.text


def test_real_phases_have_a_report_without_gaps(workspace):
    result = report(workspace)
    assert result.unread == ()
    assert set(SECTIONS) - set(result.sections) == {"Sensitivity", "Pictures"}
    assert "evaluated" in read(result.file).text


# --- what it does not do --------------------------------------------------------------------------


def test_the_page_loads_nothing_and_runs_nothing(written):
    result, page = written
    content = result.file.read_text(encoding="utf-8")
    assert not re.search(
        r"(?i)https?:|//[a-z]|@import|javascript:", re.sub(r"base64,[^\"]*", "", content)
    )
    assert not page.of(
        "script", "link", "iframe", "object", "embed", "form", "base", "foreignobject"
    )
    for tag, attributes in page.tags:
        for name, value in attributes.items():
            assert not name.startswith("on"), tag
            if name in ("src", "href", "xlink:href", "action", "data"):
                assert value.startswith(("#", "data:image/jpeg;base64,")), (tag, value)
            assert "url(" not in (value or "").replace("url(#", ""), (tag, value)
    (policy,) = (m["content"] for m in page.of("meta") if m.get("http-equiv"))
    assert policy.startswith("default-src 'none'")


def test_whatever_names_hold_stays_text(ws, tmp_path):
    hostile = tmp_path / "<img src=x onerror=alert(1)>&amp;"
    ws.rename(hostile)
    values = {
        "command": HOSTILE,
        "error": HOSTILE,
        "host": HOSTILE,
        "versions": {HOSTILE: HOSTILE},
        "inputs": {
            HOSTILE: HOSTILE,
            "b": {HOSTILE: 0.5},
            "c": {"path": HOSTILE, "sha256": HOSTILE},
        },
        "outputs": {HOSTILE: HOSTILE, "picture": f"{HOSTILE}.png"},
        "metrics": {
            "after": {HOSTILE: {"bbox_mAP": 0.5}},
            HOSTILE: HOSTILE,
            "machine": HOSTILE,
            "dense_ms": 1,
        },
        "git": {"commit": HOSTILE, "dirty": True},
    }
    for phase in ("pretrain", "finetune"):
        change(hostile, phase, **values)
    change(
        hostile,
        "demo",
        metrics={"rows": [{**row, "name": HOSTILE} for row in demo_rows(TASKS["bev"])]},
    )
    logs = next(hostile.glob("pretrain/*/*/*/scalars.json"))
    logs.write_text(json.dumps({f"{HOSTILE}$x_{{$/bbox_mAP": 0.5, "step": 1}) + "\n")
    file = next(hostile.glob("sensitivity/*/sensitivity.json"))
    file.write_text(file.read_text().replace("backbone.stages.0", json.dumps(HOSTILE)[1:-1]))
    result = report(hostile)
    content = result.file.read_text(encoding="utf-8")
    page = Read(content)
    assert not page.of("script")
    assert all(attributes["src"].startswith("data:") for attributes in page.of("img"))
    assert not any(name.startswith("on") for _, found in page.tags for name in found)
    assert not re.search(r"[\x00-\x08\x0b-\x1f\x7f-\x9f]", content)
    assert r"\x1b[31m" in page.text
    assert "alert(1)" in page.text
    assert {s for s in SECTIONS if s not in result.sections} == set()


def test_passwords_are_masked(ws):
    keep(ws, "finetune")
    url = "postgresql://me:hunter22@db.example/studies"
    change(
        ws,
        "finetune",
        command=f"sparsevit search --storage {url}",
        inputs={"storage": url},
        error=url,
    )
    content = report(ws).file.read_text(encoding="utf-8")
    assert "hunter22" not in content
    assert "me:***@db.example" in content


def test_nothing_but_the_page_is_written(ws):
    before = tree(ws)
    report(ws)
    after = tree(ws)
    assert after.pop("report.html")
    assert after == before
    assert not [path for path in ws.rglob("*") if path.name.endswith((".tmp", "-journal", "-wal"))]


# --- what is damaged ------------------------------------------------------------------------------


def damage(pattern: str, content: bytes):
    def apply(ws: Path) -> None:
        next(ws.glob(pattern)).write_bytes(content)

    return apply


def gone(pattern: str):
    return lambda ws: next(ws.glob(pattern)).unlink()


def recorded(phase: str, **fields):
    return lambda ws: change(ws, phase, **fields)


def leads_out(ws: Path) -> None:
    outside = ws.parent / "private.png"
    Image.new("RGB", (8, 8)).save(outside)
    picture = next(ws.glob("demo/*/kept_windows.png"))
    picture.unlink()
    picture.symlink_to(outside)


LOG = "pretrain/*/*/vis_data/scalars.json"


STUDY, PICTURE, OUT = (
    "search/*/study.db",
    "demo/*/kept_windows.png",
    "does not lie in the workspace",
)
OF = {
    "Results": ("demo", "finetune"),
    "Training": ("pretrain",),
    "Search": ("search",),
    "Sensitivity": ("sensitivity",),
    "Latency": ("calibrate",),
    "Pictures": ("demo",),
    "Versions and machine": ("finetune",),
}
CUT = b'{"loss": 1, "step": 1}\n{"loss": NaN, "step": 2}\n{"lo'


@pytest.mark.parametrize(
    ("apply", "section", "said"),
    [
        (damage(LOG, CUT), "Training", "a line of the log"),
        (damage(LOG, b"1\n[]\n{}\n" * 2), "Training", "6 lines of the log of pretrain run-001"),
        (damage(LOG, b"\xff\xfe\x00"), "Training", "cannot be read"),
        (damage(STUDY, b"no database"), "Search", "not an SQLite database"),
        (gone(STUDY), "Search", "No such file"),
        (recorded("search", inputs={"budgets": 5}), "Search", "does not say what was searched"),
        (damage("sensitivity/*/*.json", b"{}"), "Sensitivity", "no sensitivity"),
        (recorded("sensitivity", outputs={"sensitivity": "/etc/hostname"}), "Sensitivity", OUT),
        (damage("calibrations/*.json", b'{"document": {}}'), "Latency", "The calibration of"),
        (damage(PICTURE, b"<svg onload=a()>"), "Pictures", "no picture"),
        (gone(PICTURE), "Pictures", "There is no picture"),
        (recorded("demo", outputs={"picture": "../private.png"}), "Pictures", OUT),
        (leads_out, "Pictures", OUT),
        (recorded("demo", metrics={"rows": [{"name": 1}]}), "Results", "The comparison of demo"),
        (recorded("demo", metrics={"rows": 3}), "Results", "The comparison of demo"),
        (recorded("finetune", metrics={"after": 3}), "Results", "The scores of finetune"),
        (recorded("finetune", git={"dirty": 1}), "Versions and machine", "The versions of"),
    ],
)
def test_what_is_damaged_is_told_in_its_section_and_the_rest_is_there(ws, apply, section, said):
    keep(ws, *OF[section])
    apply(ws)
    result = report(ws)
    assert [told for told in result.unread if said in told], result.unread
    content = result.file.read_text(encoding="utf-8")
    assert {section, "Runs", "Versions and machine"} <= set(result.sections)
    part = content.split(f"<h2>{section}</h2>")[1].split("</section>")[0]
    assert said in Read(part).text
    assert content.count('class="unread"') == len(result.unread)


def test_of_a_study_that_is_gone_the_picture_stays(ws):
    keep(ws, "search")
    next(ws.glob("search/*/study.db")).unlink()
    page = read(report(ws).file)
    assert page.of("img")[0]["alt"].startswith("search run-001")


def test_a_picture_of_endless_size_is_not_opened(ws, monkeypatch):
    keep(ws, "demo")
    monkeypatch.setattr(page, "_MOST_PIXELS", 3000 * 1500 - 1)
    (told,) = report(ws).unread
    assert "it has 3000 x 1500 pixels" in told


# --- mistakes -------------------------------------------------------------------------------------


def refused(workspace, out=None) -> UserError:
    with pytest.raises(UserError) as caught:
        report(workspace, out)
    assert caught.value.remedy
    return caught.value


def test_a_workspace_must_be_there_and_something_in_it(tmp_path):
    assert "no workspace" in refused(tmp_path / "none").problem
    assert not (tmp_path / "none").exists()
    assert "nothing has run" in refused(tmp_path).problem
    assert list(tmp_path.iterdir()) == []
    (tmp_path / "workspace.json").write_text("{")
    assert "not a valid record" in refused(tmp_path).problem


def test_an_earlier_report_is_replaced_and_nothing_else(little):
    assert report(little).file == report(little).file == little / "report.html"
    for content in ("", "<!doctype html>\n<title>Mine</title>", page.MARK[:-1]):
        (little / "report.html").write_text(content)
        assert "no report of ours" in refused(little).problem
        assert (little / "report.html").read_text() == content


@pytest.mark.parametrize(
    ("out", "said"),
    [
        (".", "is a folder"),
        ("", "is a folder"),
        ("folder.html", "is a folder"),
        ("report.pdf", "does not end in .html"),
        ("report", "does not end in .html"),
        ("workspace.json", "does not end in .html"),
        ("file/report.html", "cannot be written"),
        ("pipe.html", "it is a pipe"),
        ("lost.html", "There is no report"),
        (f"{'a' * 300}.html", "File name too long"),
    ],
)
def test_a_page_goes_only_where_a_page_can_be(little, monkeypatch, out, said):
    monkeypatch.chdir(little)
    (little / "folder.html").mkdir()
    (little / "file").touch()
    os.mkfifo(little / "pipe.html")
    (little / "lost.html").symlink_to(little / "nowhere")
    before = sorted(little.iterdir())
    error = refused(little, out)
    assert said in error.problem
    assert sorted(little.iterdir()) == before


def test_a_folder_that_cannot_be_written_is_the_users_to_choose(little, monkeypatch):
    def full(*_, **__):
        raise PermissionError(13, "Permission denied")

    monkeypatch.setattr("sparsevit.sparsity.files.write_atomic", full)
    assert "cannot be written: Permission denied" in refused(little).problem


def test_the_command_says_where_the_page_is(little, tmp_path):
    out = tmp_path / "new" / "a.html"
    done = tiny.run("report", "--workspace", little, "--out", out)
    assert done.code == 0, done.err
    assert str(out) in done.out
    document = tiny.run("report", "--workspace", little, "--json").document
    assert document["file"] == str(little / "report.html")
    assert (document["runs"], document["unread"]) == (1, [])
    failed = tiny.run("report", "--workspace", tmp_path / "none")
    assert failed.code == 2
    assert "Traceback" not in failed.err


# --- a browser ------------------------------------------------------------------------------------


def shown(file: str, profile: Path) -> subprocess.CompletedProcess[str]:
    """What a browser makes of a page, in the width of a phone."""
    return subprocess.run(
        [
            *(str(BROWSER), "--headless", "--no-sandbox", "--disable-gpu", "--dump-dom"),
            *("--enable-logging=stderr", f"--user-data-dir={profile}"),
            *("--window-size=390,800", file),
        ],
        capture_output=True,
        text=True,
        timeout=120,
        check=False,
    )


@pytest.mark.skipif(BROWSER is None, reason="no Chromium is installed")
def test_a_browser_shows_it_without_complaint_and_a_phone_in_its_width(written, tmp_path):
    """The copy that is opened measures itself, which the page itself forbids."""
    content = written[0].file.read_text(encoding="utf-8")
    measured = tmp_path / "measured.html"
    script = (
        "<script>const all = document.documentElement; document.title = [innerWidth, "
        "all.scrollWidth, document.images[0].naturalWidth].join(' ')</script>"
    )
    without = re.sub(r'<meta http-equiv="Content-Security-Policy"[^>]*>', "", content)
    measured.write_text(without.replace("</body>", f"{script}</body>"), encoding="utf-8")
    if shown("about:blank", tmp_path / "profile").returncode:
        pytest.skip("the Chromium that is installed does not start")
    for file in (written[0].file, measured):
        done = shown(file.as_uri(), tmp_path / "profile")
        assert done.returncode == 0, done.stderr
        assert ":CONSOLE" not in done.stderr
        assert "Versions and machine</h2>" in done.stdout
    window, width, picture = map(int, re.search(r"<title>([\d ]+)</title>", done.stdout)[1].split())
    assert picture == 1400
    assert width <= window
