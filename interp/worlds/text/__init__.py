"""Plain text as a world: any UTF-8 file, or the documentation that Python brings, held out by blocks or documents."""

from interp.worlds.text.classes import CLASSES
from interp.worlds.text.source import DEFAULT, MOST_CHARACTERS, survey
from interp.worlds.text.vocabulary import END, BytePairs, Characters, Vocabulary
from interp.worlds.text.windows import Windows
from interp.worlds.text.world import TextWorld

__all__ = [
    "CLASSES",
    "DEFAULT",
    "END",
    "MOST_CHARACTERS",
    "BytePairs",
    "Characters",
    "TextWorld",
    "Vocabulary",
    "Windows",
    "survey",
]
