"""One HTML page that needs nothing else: of tables, figures, pictures and text, all escaped."""

from __future__ import annotations

import base64
import html
import io
import re
from collections.abc import Iterable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING

from rich.console import Group
from rich.table import Table

from sparsevit.errors import UserError, shortened
from sparsevit.plain_files import open_file
from sparsevit.report.status import STYLES
from sparsevit.report.terminal import visible
from sparsevit.secrets import masked

if TYPE_CHECKING:
    from matplotlib.figure import Figure

MARK = """\
<!doctype html>
<html lang="en">
<head>
<meta charset="utf-8">
<meta name="generator" content="sparsevit report">
"""
"""How every page begins: by it an earlier one is known."""

DAMAGED = (
    *(OSError, ValueError, TypeError, LookupError, AttributeError, ArithmeticError, RuntimeError),
)
"""What reading a file, or making anything of what is in it, may raise where it is damaged."""

_MOST_CHARACTERS = 4000
_INCHES = (5.8, 3.7)
_WIDEST, _HIGHEST, _MOST_PIXELS, _QUALITY = 1400, 2800, 1 << 26, 85
# of what matplotlib writes: its own style, names that would be there twice, and long lists of fonts
_SPARE = re.compile(
    r"<defs>\s*<style.*?</style>\s*</defs>| id=\"[\w.]+_\d+\"| ?font-family: [^;\"]*;?", re.DOTALL
)

_POLICY = "default-src 'none'; img-src data:; style-src 'unsafe-inline'"
_CSS = """\
:root { color-scheme: light dark; --ink: #1c2126; --dim: #5d6873; --line: #d8dde2;
  --page: #ffffff; --card: #f5f7f9; --link: #0b5cad; --green: #1a7f37; --cyan: #0b7285;
  --red: #b42318; --yellow: #8a6100; }
@media screen and (prefers-color-scheme: dark) {
  :root { --ink: #e4e8ec; --dim: #9aa5b1; --line: #39424c; --page: #14181c; --card: #1d2329;
    --link: #7ab8ff; --green: #57c46f; --cyan: #53c5d8; --red: #ff8a80; --yellow: #e3b341; }
  figure svg { filter: invert(1) hue-rotate(180deg) brightness(1.4); } }
* { box-sizing: border-box; }
body { margin: 0 auto; max-width: 72rem; padding: 1.5rem 1rem 4rem; background: var(--page);
  color: var(--ink); font: 1rem/1.5 system-ui, sans-serif; }
h1 { font-size: 1.7rem; margin: 0; overflow-wrap: anywhere; }
h2 { font-size: 1.25rem; margin: 2.5rem 0 .75rem; padding-top: .75rem;
  border-top: 1px solid var(--line); }
h3 { font-size: 1rem; margin: 1.5rem 0 .25rem; }
p { margin: .4rem 0; overflow-wrap: anywhere; white-space: pre-line; }
a { color: var(--link); }
nav { display: flex; flex-wrap: wrap; gap: .25rem 1.1rem; margin: 1rem 0; }
.made, .dim, figcaption { color: var(--dim); font-size: .85rem; }
code { font: .85em ui-monospace, monospace; background: var(--card); padding: .1em .35em;
  border-radius: 3px; overflow-wrap: anywhere; }
.unread { border-left: 3px solid var(--yellow); background: var(--card); padding: .5rem .75rem; }
.scroll { overflow-x: auto; margin: .75rem 0; }
table { border-collapse: collapse; font-size: .875rem; font-variant-numeric: tabular-nums; }
caption { text-align: left; font-weight: 600; padding: .25rem 0; }
th, td { text-align: left; vertical-align: top; padding: .3rem .75rem .3rem 0;
  border-bottom: 1px solid var(--line); white-space: pre-line; }
th { color: var(--dim); font-weight: 600; }
td { overflow-wrap: anywhere; min-width: 8rem; max-width: 32rem; }
.right { text-align: right; } .right, .whole { white-space: nowrap; min-width: 0; }
.bold { font-weight: 700; }
.green { color: var(--green); } .cyan { color: var(--cyan); } .red { color: var(--red); }
.yellow { color: var(--yellow); }
.figures { display: grid; grid-template-columns: repeat(auto-fit, minmax(min(100%, 24rem), 1fr));
  gap: 1rem; margin: .75rem 0; }
figure { margin: 0; max-width: 36rem; }
figure svg, figure img { display: block; width: 100%; height: auto; }
figure.picture { max-width: none; margin: .75rem 0; }
figure.picture img { width: auto; max-width: 100%; }
svg text { font-family: "DejaVu Sans", Verdana, sans-serif; }
svg * { stroke-linejoin: round; stroke-linecap: butt; }
details { border-bottom: 1px solid var(--line); padding: .35rem 0; }
summary { cursor: pointer; overflow-wrap: anywhere; }
@media screen and (max-width: 40rem) {
  td:last-child:not(.right, .whole) { min-width: 16rem; } }
@media print {
  html { font-size: 9.5pt; } body { max-width: none; padding: 0; }
  nav { display: none; } .scroll { overflow: visible; }
  details::details-content { content-visibility: visible; block-size: auto; }
  figure, tr, h2, h3 { break-inside: avoid; } h2, h3 { break-after: avoid; } }
"""


@dataclass
class Section:
    """A part of the page under a heading.

    Attributes:
        title: constant; also its anchor.
        parts: HTML, made by the functions of this module.
        unread: what could not be read, and why.
    """

    title: str
    parts: list[str] = field(default_factory=list)
    unread: list[str] = field(default_factory=list)

    @contextmanager
    def reading(self, what: str) -> Iterator[None]:
        """Within it, what is missing or damaged is told in the section instead of raised."""
        try:
            yield
        except UserError as error:
            self.unread.append(f"{what}: {error.problem}")
        except DAMAGED as error:
            self.unread.append(f"{what} cannot be shown: {type(error).__name__}: {error}")

    @property
    def anchor(self) -> str:
        """The name by which the page's table of contents leads to it."""
        return self.title.lower().replace(" ", "-")

    def to_html(self) -> str:
        """The section with its heading."""
        unread = (f'<p class="unread">{text(said)}</p>' for said in self.unread)
        heading = f'<section id="{text(self.anchor)}"><h2>{text(self.title)}</h2>'
        return "\n".join([heading, *self.parts, *unread, "</section>"])


def page(title: str, lead: Iterable[str], sections: Iterable[Section]) -> str:
    """The whole page. It loads nothing, runs nothing, and forbids both to a browser.

    Args:
        title: plain text.
        lead: HTML that stands below the title.
        sections: in their order.
    """
    shown = list(sections)
    links = "".join(f'<a href="#{text(s.anchor)}">{text(s.title)}</a>' for s in shown)
    return "\n".join(
        [
            f'{MARK}<meta http-equiv="Content-Security-Policy" content="{_POLICY}">',
            '<meta name="viewport" content="width=device-width, initial-scale=1">',
            '<meta name="referrer" content="no-referrer">',
            f"<title>{text(title)}</title>",
            f"<style>\n{_CSS}</style>\n</head>\n<body>",
            f"<header><h1>{text(title)}</h1>",
            *lead,
            f"<nav>{links}</nav></header>\n<main>",
            *(section.to_html() for section in shown),
            "</main>\n</body>\n</html>\n",
        ]
    )


def text(value: object) -> str:
    """Anything as text in HTML: no tags, no control characters, no passwords, not endless."""
    return html.escape(visible(shortened(masked(str(value)), _MOST_CHARACTERS)))


def paragraph(said: str, kind: str = "") -> str:
    """Plain text as a paragraph, of a class of the page's style."""
    return f'<p class="{kind}">{text(said)}</p>' if kind else f"<p>{text(said)}</p>"


def rendered(group: Group | Table) -> str:
    """What is printed on a terminal, as HTML: tables, and lines of text."""
    parts = group.renderables if isinstance(group, Group) else [group]
    return "\n".join(
        _table(part) if isinstance(part, Table) else paragraph(str(part)) for part in parts
    )


def figure(drawn: Figure, said: str) -> str:
    """A figure as inline SVG, whose text is text.

    Args:
        drawn: of matplotlib; its size and backgrounds are changed.
        said: what it shows, as its caption.
    """
    from matplotlib import rc_context

    drawn.set_size_inches(_INCHES)
    for patch in (drawn.patch, *(axes.patch for axes in drawn.axes)):
        patch.set_visible(False)
    buffer = io.StringIO()
    nothing = dict.fromkeys(("Date", "Type", "Format", "Creator"))
    with rc_context({"svg.fonttype": "none", "svg.hashsalt": "sparsevit"}):
        drawn.savefig(buffer, format="svg", metadata=nothing)
    # without the declarations before it, which name addresses that HTML does not need
    head, _, content = visible(buffer.getvalue()).partition("<svg ")[2].partition(">")
    view = re.search(r'viewBox="[^"]*"', head)
    svg = f'<svg role="img" aria-label="{text(said)}" {view[0] if view else ""}>'
    svg += _SPARE.sub("", content)
    return f"<figure>{svg}<figcaption>{text(said)}</figcaption></figure>"


def side_by_side(figures: Iterable[str]) -> str:
    """Figures beside each other, where there is room."""
    return f'<div class="figures">{"".join(figures)}</div>'


def picture(path: Path, said: str) -> str:
    """A PNG or JPEG file as a part of the page, scaled down where it is large.

    Raises:
        UserError: there is no such file.
        ValueError: it is no picture, or has too many pixels.
    """
    from PIL import Image

    buffer = io.BytesIO()
    try:
        with open_file(path, "picture") as file, Image.open(file, formats=("PNG", "JPEG")) as image:
            if image.width * image.height > _MOST_PIXELS:
                raise ValueError(f"it has {image.width} x {image.height} pixels")
            small = image.convert("RGB")
        small.thumbnail((_WIDEST, _HIGHEST))
        small.save(buffer, "JPEG", quality=_QUALITY, subsampling=0)
    except (SyntaxError, OSError, Image.DecompressionBombError) as error:
        raise ValueError(f"it is no picture that can be read ({error})") from error
    data = base64.b64encode(buffer.getvalue()).decode("ascii")
    return (
        f'<figure class="picture"><img alt="{text(said)}" width="{small.width}" '
        f'height="{small.height}" src="data:image/jpeg;base64,{data}">'
        f"<figcaption>{text(said)}</figcaption></figure>"
    )


def folded(summary: str, content: str) -> str:
    """HTML that opens by a click on another; on paper it is open."""
    return f"<details><summary>{summary}</summary>{content}</details>"


def _table(table: Table) -> str:
    columns = table.columns
    parts = [] if table.title is None else [f"<caption>{text(table.title)}</caption>"]
    if table.show_header:
        heads = (
            f'<th scope="col"{_class(column.justify)}>{text(column.header)}</th>'
            for column in columns
        )
        parts.append(f"<thead><tr>{''.join(heads)}</tr></thead>")
    parts.append("<tbody>")
    cells = zip(*(column.cells for column in columns), strict=True)
    for row, values in zip(table.rows, cells, strict=True):
        shown = (
            f"<td{_class(column.justify, 'whole' * column.no_wrap, STYLES.get(str(value), ''))}>"
            f"{text(value)}</td>"
            for value, column in zip(values, columns, strict=True)
        )
        parts.append(f"<tr{_class(str(row.style or ''))}>{''.join(shown)}</tr>")
    caption = paragraph(str(table.caption), "dim") if table.caption else ""
    return f'<div class="scroll"><table>{"".join(parts)}</tbody></table></div>{caption}'


def _class(*names: str) -> str:
    """The attribute, for the styles of rich that the page has too."""
    named = " ".join(name for name in names if name not in ("", "left"))
    return f' class="{text(named)}"' if named else ""
