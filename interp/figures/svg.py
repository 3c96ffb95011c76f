"""Small vector drawings as SVG text, for pages in docs/; nothing but strings, so they need no browser to be made."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from html import escape

INK, QUIET, FAINT = "#1F2329", "#69707A", "#DFE3E8"
PALETTE = ("#0072B2", "#D55E00", "#009E73", "#CC79A7", "#E69F00", "#56B4E9", "#8A6D3B", "#444444")


def drawing(parts: Iterable[str], *, width: float, height: float, title: str) -> str:
    """A whole SVG document on white; `title` is what a screen reader says."""
    return "\n".join(
        [
            f'<svg xmlns="http://www.w3.org/2000/svg" width="{width:g}" height="{height:g}" '
            f'viewBox="0 0 {width:g} {height:g}" role="img" font-family="system-ui, sans-serif" font-size="12">',
            f"<title>{escape(title)}</title>",
            f'<rect width="{width:g}" height="{height:g}" fill="#ffffff"/>',
            *parts,
            "</svg>",
            "",
        ]
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
