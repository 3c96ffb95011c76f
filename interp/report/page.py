"""One offline HTML page: text, tables that need no script, and figures that are inflated and drawn in the page.

plotly.js and the figures travel as gzip in base64 (a quarter of plotly.js's size) and are inflated by the browser's
DecompressionStream. A content security policy forbids every request.
"""

from __future__ import annotations

import base64
import gzip
import html
import json
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from functools import cache
from importlib import resources

import plotly.graph_objects as go

from interp.figures.svg import Drawing

_POLICY = "default-src 'none'; style-src 'unsafe-inline'; script-src 'unsafe-inline' 'unsafe-eval'; img-src data: blob:"


def escape(text: object) -> str:
    """Text as HTML."""
    return html.escape(str(text))


def code(text: object) -> str:
    """A name or command in monospace."""
    return f"<code>{escape(text)}</code>"


@dataclass(frozen=True)
class Section:
    """One section of the page."""

    id: str  # of its anchor
    name: str  # in the navigation
    question: str  # its heading
    body: str  # HTML


class Page:
    """Collects figures while sections are written; each is drawn where its placeholder stands."""

    def __init__(self) -> None:
        self._figures: list[str] = []
        self._groups = 0

    def figure(self, drawing: go.Figure, *, alt: str, caption: str = "") -> str:
        """A placeholder for a figure with a caption (HTML); `alt` says in words what it shows."""
        self._figures.append(json.dumps(_rounded(json.loads(str(drawing.to_json()))), separators=(",", ":")))
        height = int(drawing.layout.height or 450)
        place = len(self._figures) - 1
        below = f"<figcaption>{caption}</figcaption>" if caption else ""
        return (
            f'<figure><div class="plot" role="img" aria-label="{escape(alt)}" data-figure="{place}" '
            f'style="min-height:{height}px"><div class="waiting">This drawing needs JavaScript; its numbers are in the '
            f"tables.</div></div>{below}</figure>"
        )

    def drawing(self, svg: Drawing, *, caption: str = "") -> str:
        """A drawing that needs no script and says by itself what it shows, with a caption (HTML)."""
        below = f"<figcaption>{caption}</figcaption>" if caption else ""
        return f'<figure class="drawing">{svg}{below}</figure>'

    def tabs(self, label: str, panels: Sequence[tuple[str, str]], *, chosen: int = 0) -> str:
        """Panels of HTML of which one is shown, chosen by radio buttons; printed, all are. Needs no script."""
        self._groups += 1
        group = f"tabs{self._groups}"
        buttons, bodies = [], []
        for place, (name, body) in enumerate(panels):
            checked = " checked" if place == chosen else ""
            buttons.append(
                f'<input type="radio" name="{group}" id="{group}-{place}"{checked}>'
                f'<label for="{group}-{place}">{escape(name)}</label>'
            )
            bodies.append(f'<div class="panel"><h4>{escape(name)}</h4>{body}</div>')
        rules = "".join(
            f"#{group}-{place}:checked ~ .panels > .panel:nth-child({place + 1}) {{ display: block; }}"
            for place in range(len(panels))
        )
        return (
            f'<style>{rules}</style><div class="tabs" role="radiogroup" aria-label="{escape(label)}">'
            f'<span class="label">{escape(label)}</span>{"".join(buttons)}'
            f'<div class="panels">{"".join(bodies)}</div></div>'
        )

    def render(self, *, title: str, header: str, sections: Sequence[Section], footer: str) -> str:
        """The whole page; header, bodies and footer are HTML."""
        links = "".join(f'<li><a href="#{part.id}">{escape(part.name)}</a></li>' for part in sections)
        bodies = "".join(
            f'<section id="{part.id}"><h2><span class="kicker">{escape(part.name)}</span>{escape(part.question)}</h2>'
            f"{part.body}</section>"
            for part in sections
        )
        here = resources.files("interp.report")
        style = (here / "page.css").read_text(encoding="utf-8")
        script = (here / "page.js").read_text(encoding="utf-8")
        drawing = ""
        if self._figures:
            drawing = (
                f'<script type="application/gzip" id="plotly">{_packed_plotly()}</script>\n'
                f'<script type="application/gzip" id="figures">{_packed(json.dumps(self._figures))}</script>\n'
                f"<script>{script}</script>\n"
            )
        return (
            '<!doctype html>\n<html lang="en">\n<head>\n<meta charset="utf-8">\n'
            f'<meta http-equiv="Content-Security-Policy" content="{_POLICY}">\n'
            '<meta name="viewport" content="width=device-width, initial-scale=1">\n'
            f"<title>{escape(title)}</title>\n<style>{style}</style>\n</head>\n<body>\n"
            f'<header>{header}</header>\n<nav aria-label="Sections"><ul>{links}</ul></nav>\n<main>{bodies}</main>\n'
            f"<footer>{footer}</footer>\n{drawing}</body>\n</html>\n"
        )


def table(
    headings: Sequence[str], rows: Iterable[Sequence[str]], *, caption: str = "", numbers: Iterable[int] = ()
) -> str:
    """A table of HTML cells; the first column heads its row, the columns in `numbers` are aligned right."""
    right = set(numbers)

    def cell(tag: str, place: int, body: str, scope: str = "") -> str:
        kind = ' class="number"' if place in right else ""
        return f"<{tag}{scope}{kind}>{body}</{tag}>"

    head = "".join(cell("th", place, body, ' scope="col"') for place, body in enumerate(headings))
    body = "".join(
        "<tr>"
        + "".join(
            cell("th", place, text, ' scope="row"') if place == 0 else cell("td", place, text)
            for place, text in enumerate(row)
        )
        + "</tr>"
        for row in rows
    )
    label = f"<caption>{caption}</caption>" if caption else ""
    return f'<div class="scroll"><table>{label}<thead><tr>{head}</tr></thead><tbody>{body}</tbody></table></div>'


def facts(rows: Iterable[tuple[str, str]]) -> str:
    """A table of names and what they are (HTML)."""
    body = "".join(f'<tr><th scope="row">{escape(name)}</th><td>{value}</td></tr>' for name, value in rows)
    return f'<div class="scroll"><table class="facts"><tbody>{body}</tbody></table></div>'


def how_to_read(*paragraphs: str) -> str:
    """A box that says how a section is to be read."""
    body = "".join(f"<p>{text}</p>" for text in paragraphs)
    return f'<div class="how" role="note"><p><b>How to read this</b></p>{body}</div>'


def missing(message: str, command: str | None) -> str:
    """A box in place of what is not there, with the command that makes it."""
    mend = f"<p>Make it with {code(command)}</p>" if command else ""
    return f'<div class="missing"><p>{escape(message)}</p>{mend}</div>'


def details(summary: str, body: str) -> str:
    """HTML that opens on a click."""
    return f"<details><summary>{escape(summary)}</summary>{body}</details>"


def _rounded(value: object) -> object:
    """JSON with floats at five significant digits: as much as a drawing shows, and half the size."""
    if isinstance(value, float):
        return float(f"{value:.5g}")
    if isinstance(value, list):
        return [_rounded(item) for item in value]
    return {name: _rounded(item) for name, item in value.items()} if isinstance(value, dict) else value


@cache
def _packed_plotly() -> str:
    from plotly.offline import get_plotlyjs

    return _packed(get_plotlyjs())


def _packed(text: str) -> str:
    return base64.b64encode(gzip.compress(text.encode(), 9, mtime=0)).decode()
