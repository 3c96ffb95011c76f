"""Small vector drawings as SVG text, for pages, the report and the app: strings, made without a browser."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from html import escape

INK, QUIET, FAINT = "#1F2329", "#69707A", "#DFE3E8"
PALETTE = ("#0072B2", "#D55E00", "#009E73", "#CC79A7", "#E69F00", "#56B4E9", "#8A6D3B", "#444444")
INHERITED = "currentColor"  # text that is dark on a light page and light on a dark one


class Drawing(str):
    """SVG text, which a notebook shows as a picture."""

    __slots__ = ()

    def _repr_html_(self) -> str:
        return str(self)


def drawing(
    parts: Iterable[str], *, width: float, height: float, title: str, inside: bool = False, pickable: bool = False
) -> Drawing:
    """A whole SVG document; `title` is what a screen reader says.

    Args:
        parts: elements, the later ones over the earlier.
        width: in pixels.
        height: in pixels.
        title: what is drawn, in words.
        inside: to stand inside an HTML page, as wide as there is room, on the page's own ground; else on white.
        pickable: parts of it can be picked inside the page, so it is no single image.
    """
    file = f'xmlns="http://www.w3.org/2000/svg" width="{width:g}" height="{height:g}"'
    frame = 'style="width:100%;height:auto"' if inside else file
    role = "group" if pickable else "img"
    said, above = f'role="{role}" aria-label="{escape(title)}"', []  # a title would be shown wherever the mouse rests
    if not inside:
        said = 'role="img"'
        above = [f"<title>{escape(title)}</title>", f'<rect width="{width:g}" height="{height:g}" fill="#ffffff"/>']
    return Drawing(
        "\n".join(
            [
                f"<svg {frame} "
                f'viewBox="0 0 {width:g} {height:g}" '
                f'{said} font-family="system-ui, sans-serif" font-size="12">',
                *above,
                *parts,
                "</svg>",
                "",
            ]
        )
    )


def text(x: float, y: float, words: str, *, size: int = 12, fill: str = INK, anchor: str = "start") -> str:
    """Words with their baseline at (x, y); anchor: start, middle or end."""
    return (
        f'<text x="{x:.6g}" y="{y:.6g}" text-anchor="{anchor}" fill="{fill}" font-size="{size}">{escape(words)}</text>'
    )


def line(x1: float, y1: float, x2: float, y2: float, *, stroke: str = FAINT, width: float = 1) -> str:
    """A straight line."""
    return f'<line x1="{x1:.6g}" y1="{y1:.6g}" x2="{x2:.6g}" y2="{y2:.6g}" stroke="{stroke}" stroke-width="{width:g}"/>'


def curve(points: Sequence[tuple[float, float]], *, stroke: str, width: float = 1.5, dash: str = "") -> str:
    """A polyline through the points."""
    path = " ".join(f"{x:.5g},{y:.5g}" for x, y in points)
    dashed = f' stroke-dasharray="{dash}"' if dash else ""
    return f'<polyline points="{path}" fill="none" stroke="{stroke}" stroke-width="{width:g}"{dashed}/>'


def dot(x: float, y: float, *, fill: str, radius: float = 3, stroke: str = "none") -> str:
    """A disc."""
    return f'<circle cx="{x:.6g}" cy="{y:.6g}" r="{radius:g}" fill="{fill}" stroke="{stroke}"/>'
