"""Colours and glyphs of the app: those of all figures, and what only a page needs; never colour alone."""

from interp.figures.style import DARK_TEXT, GLYPHS, NEGATIVE, OP_COLORS, POSITIVE, SIGNED

__all__ = [
    "CIVIDIS", "DARK_TEXT", "GLYPHS", "HATCHED", "LIGHT_TEXT", "NEGATIVE", "OP_COLORS", "OP_MEANINGS", "POSITIVE",
    "SIGNED", "contrast", "luminance", "text_on", "token_text",
]  # fmt: skip

HATCHED = frozenset({"ENDW"})  # the same colour as its partner WHILE, told apart by hatching

OP_MEANINGS = {
    "NEXT": "move the array pointer one cell right",
    "PREV": "move the array pointer one cell left",
    "INC": "add 1 to the cell under the pointer",
    "DEC": "subtract 1 from the cell under the pointer",
    "PUT": "append the cell to the output",
    "GET": "move the head of the input into the cell",
    "WHILE": "if the cell is 0, jump past the matching ENDW",
    "ENDW": "if the cell is not 0, jump back after the matching WHILE",
    "STOP": "stay here for ever",
}

CIVIDIS = ["#00224E", "#123570", "#3B496C", "#575D6D", "#707173", "#8A8678", "#A59C74", "#C3B369", "#E1CC55", "#FEE838"]

LIGHT_TEXT = "#FFFFFF"


def token_text(token: str) -> str:
    """A token as a strip shows it: NUM_3 is 3, an empty slot of a buffer is "empty"."""
    return {"EOI": "empty", "EOO": "empty"}.get(token, token.removeprefix("NUM_"))


def luminance(color: str) -> float:
    """Relative luminance of "#RRGGBB" in [0, 1] (WCAG 2.2)."""
    channels = [int(color[i : i + 2], 16) / 255 for i in (1, 3, 5)]
    linear = [c / 12.92 if c <= 0.04045 else ((c + 0.055) / 1.055) ** 2.4 for c in channels]
    return 0.2126 * linear[0] + 0.7152 * linear[1] + 0.0722 * linear[2]


def contrast(a: str, b: str) -> float:
    """WCAG contrast ratio of two colours, 1 to 21."""
    high, low = sorted((luminance(a), luminance(b)), reverse=True)
    return (high + 0.05) / (low + 0.05)


def text_on(color: str) -> str:
    """The text colour, dark or light, that reads better on `color`."""
    return max((DARK_TEXT, LIGHT_TEXT), key=lambda text: contrast(text, color))
