"""Rule strings as a world: texts made by a rule whose next-character distribution is known exactly.

A rule is an automaton: a state of a few integers, the exact distribution of the next character given it, and the state
after that character. Sampler, conditionals, validator and variables all follow from these three.
"""

from interp.worlds.strings.arithmetic import Arithmetic
from interp.worlds.strings.contexts import context_floor, uniform_share
from interp.worlds.strings.copying import Copying
from interp.worlds.strings.counting import Counting
from interp.worlds.strings.markov import Markov
from interp.worlds.strings.rule import END, Fault, Rule
from interp.worlds.strings.sticky import Sticky
from interp.worlds.strings.world import RULES, StringWorld

__all__ = [
    "END",
    "RULES",
    "Arithmetic",
    "Copying",
    "Counting",
    "Fault",
    "Markov",
    "Rule",
    "Sticky",
    "StringWorld",
    "context_floor",
    "uniform_share",
]
