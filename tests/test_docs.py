"""The documentation names what there is: commands, options, configs, files. No private places."""

from __future__ import annotations

import re
from pathlib import Path

import pytest
from typer.core import TyperGroup

from sparsevit.cli import main as cli
from sparsevit.engine.config_names import shipped_configs

ROOT = Path(__file__).parents[1]
PAGES = sorted(
    [
        *ROOT.glob("*.md"),
        *ROOT.glob("docs/*.md"),
        *ROOT.glob("configs/**/*.md"),
        *ROOT.glob("benchmarks/**/*.md"),
    ]
)
COMMANDS_PAGE = ROOT / "docs" / "commands.md"
SHARED = "What commands share"
# Options of the program itself and of typer, and those of other programs in our pages.
PROGRAM_OPTIONS = {"--help", "--version", "--install-completion", "--show-completion"}

FENCE = re.compile(r"^( *)```(\w*)\n(.*?)^\1```$", re.MULTILINE | re.DOTALL)
LINK = re.compile(r"!?\[[^\]]*\]\(([^)\s]+)\)")
OPTION = re.compile(r"(?<![\w-])--[a-z][a-z-]*")
CONFIG_NAME = re.compile(
    r"(?<![\w:/.-])(?:sparsevit::|configs/)?((?:sparsevit|swin|demo)/[\w.-]+\.py)\b"
)

FORBIDDEN = {
    "a path of one machine": re.compile(r"(?<![\w.])/(?:work|tmp|root|home)/"),
    "a registry's host": re.compile(
        r"py(?:pi\.|thonhosted)|download\.pytorch\.org|index-url https?:"
    ),
    "marketing": re.compile(
        r"\b(?:blazing|seamless|cutting.edge|state.of.the.art|revolutionary|effortless)", re.I
    ),
    "an emoji": re.compile("[\U0001f300-\U0001faff\u2600-\u27bf]"),
}


def commands() -> dict[str, set[str]]:
    """Each command, ``data make`` too, with its options."""
    found: dict[str, set[str]] = {}
    for name in cli.COMMANDS:
        command = cli.load_command(name)
        members = command.commands if isinstance(command, TyperGroup) else {"": command}
        for sub, one in members.items():
            options = {o for p in one.params for o in (*p.opts, *p.secondary_opts)}
            found[f"{name} {sub}".strip()] = {o for o in options if o.startswith("--")}
    return found


COMMANDS = commands()


def without_fences(text: str) -> str:
    return FENCE.sub("", text)


def sections(text: str) -> dict[str, str]:
    parts = re.split(r"^## (.+)$", text, flags=re.MULTILINE)
    return dict(zip(parts[1::2], parts[2::2], strict=True))


def headings(text: str) -> set[str]:
    """The anchors of a page, as GitHub makes them."""
    titles = re.findall(r"^#+ (.+)$", without_fences(text), flags=re.MULTILINE)
    return {re.sub(r"[^\w\- ]", "", title.lower()).strip().replace(" ", "-") for title in titles}


def typed_commands(text: str) -> list[str]:
    """What a page tells to type: lines of code blocks, and code within lines."""
    blocks = "\n".join(
        code.replace("\\\n", " ") for _, kind, code in FENCE.findall(text) if kind != "python"
    )
    lines = [line.strip().removeprefix("$ ") for line in blocks.splitlines()]
    inline = re.findall(r"`([^`\n]+)`", without_fences(text))
    wanted = re.compile(r"^(?:\.venv/bin/)?sparsevit [a-z-]")
    return [w.split(" #")[0].removeprefix(".venv/bin/") for w in lines + inline if wanted.match(w)]


def test_every_command_has_its_section():
    found = set(sections(COMMANDS_PAGE.read_text(encoding="utf-8")))
    assert set(COMMANDS) <= found
    assert found - set(COMMANDS) <= {SHARED, "Environment variables", "make"}


@pytest.mark.parametrize("command", COMMANDS)
def test_a_command_is_described_with_exactly_the_options_that_it_has(command):
    section = sections(COMMANDS_PAGE.read_text(encoding="utf-8"))[command]
    prose = without_fences(section)
    listed = re.findall(r"^\| (`--.*?) \|", prose, flags=re.MULTILINE)
    also = re.findall(r"(?:^And|Options:) ((?:`--[a-z-]+`[,\s]*)+)", prose, flags=re.MULTILINE)
    described = {o for text in (*listed, *also) for o in OPTION.findall(text)}
    assert described == COMMANDS[command] - PROGRAM_OPTIONS


def test_shared_options_exist():
    shared = sections(COMMANDS_PAGE.read_text(encoding="utf-8"))[SHARED]
    rows = re.findall(r"^\| `(--[a-z-]+)", shared, flags=re.MULTILINE)
    assert rows
    assert set(rows) <= set().union(*COMMANDS.values())


@pytest.mark.parametrize("page", PAGES, ids=lambda page: str(page.relative_to(ROOT)))
def test_what_a_page_tells_to_type_exists(page):
    for typed in typed_commands(page.read_text(encoding="utf-8")):
        words = typed.split()[1:]
        if words[0] in ("COMMAND", "...") or words[0].startswith("-"):
            assert set(OPTION.findall(typed)) <= PROGRAM_OPTIONS, typed
            continue
        name = words[0] if words[0] != "data" else " ".join(words[:2])
        assert name in COMMANDS, typed
        assert set(OPTION.findall(typed)) <= COMMANDS[name] | PROGRAM_OPTIONS, typed


@pytest.mark.parametrize("page", PAGES, ids=lambda page: str(page.relative_to(ROOT)))
def test_links_within_the_repository_lead_somewhere(page):
    text = page.read_text(encoding="utf-8")
    for target in LINK.findall(without_fences(text)):
        if "://" in target:
            continue
        path, _, anchor = target.partition("#")
        file = (page.parent / path).resolve() if path else page
        assert file.exists(), f"{target} does not exist"
        assert file == ROOT or ROOT in file.parents, f"{target} leaves the repository"
        if anchor:
            assert anchor in headings(file.read_text(encoding="utf-8")), f"{target}: no such part"


@pytest.mark.parametrize("page", PAGES, ids=lambda page: str(page.relative_to(ROOT)))
def test_configs_that_are_named_are_shipped(page):
    text = page.read_text(encoding="utf-8")
    # one column of the table in docs/coco.md holds the commands of the paper's repository
    text = re.sub(r"`(?:tools/|torchpack|python tools/)[^`]*`", "", text)
    for name in CONFIG_NAME.findall(text):
        assert name in shipped_configs()


@pytest.mark.parametrize("page", PAGES, ids=lambda page: str(page.relative_to(ROOT)))
def test_python_in_pages_compiles(page):
    for _, kind, code in FENCE.findall(page.read_text(encoding="utf-8")):
        if kind == "python":
            compile(code, str(page), "exec")


@pytest.mark.parametrize("page", PAGES, ids=lambda page: str(page.relative_to(ROOT)))
@pytest.mark.parametrize("kind", FORBIDDEN)
def test_pages_hold_no(kind, page):
    found = FORBIDDEN[kind].findall(page.read_text(encoding="utf-8"))
    assert not found, f"{kind}: {found}"


def test_the_readme_has_a_place_for_results():
    text = (ROOT / "README.md").read_text(encoding="utf-8")
    assert text.index("<!-- results -->") < text.index("<!-- /results -->")


def test_make_recipes_that_pages_name_exist():
    makefile = (ROOT / "Makefile").read_text(encoding="utf-8")
    recipes = set(re.findall(r"^([a-z-]+):", makefile, flags=re.MULTILINE))
    recipes |= set(re.search(r"^PHASES := (.*)$", makefile, flags=re.MULTILINE)[1].split())
    for page in PAGES:
        for name in re.findall(
            r"(?:^|`)make ([a-z][a-z-]*)", page.read_text(encoding="utf-8"), re.M
        ):
            assert name in recipes, f"{page.name}: make {name}"
