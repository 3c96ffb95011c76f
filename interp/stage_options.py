"""What each stage that measures a run is asked: a dataclass a stage, whose fields are the options of its verb.

The defaults are said here and nowhere else: the command line shows them with the comments below as help, stages take
the dataclass, and functions further down refer to its fields.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Literal

from interp.ranges import require_fields

PairDesign = Literal["independent", "minimal"]
Balance = Literal["op_outcome", "natural"]
Measure = Literal["roles", "edges", "dissociation", "evidence", "approximations", "positions", "routes"]
Level = Literal["node", "neuron", "subspace"]
Ablation = Literal["resample", "mean", "zero"]
Grid = Literal["log", "mib"]
LEVELS: tuple[Level, ...] = ("node", "neuron", "subspace")
ABLATIONS: tuple[Ablation, ...] = ("resample", "mean", "zero")
GRIDS: tuple[Grid, ...] = ("log", "mib")


@dataclass(frozen=True)
class EvaluationOptions:
    """What `tapelens eval` is asked."""

    n: int = 20_000
    """How many states; memory does not grow with it."""
    seed: int = 2
    """Of the states (default: that of the final evaluation, which the training curve never uses)."""
    balance: Balance = "op_outcome"
    """Draw evenly over op x outcome, or as programs and states come; the headline is the macro average."""
    programs: int = 200
    """How many long-running held-out programs to run on the model's own predictions (0: none)."""
    max_steps: int = 100
    """Of a program."""

    def __post_init__(self) -> None:
        require_fields(self, n=1, programs=0, max_steps=1, seed=0)


@dataclass(frozen=True)
class CardOptions:
    """What `tapelens card` is asked."""

    n: int = 100_000
    """How many held-out states, spread evenly over op x outcome."""
    seed: int = 7
    """Of the states."""
    programs: int = 500
    """How many long-running held-out programs to run on the model's own predictions (0: none)."""

    def __post_init__(self) -> None:
        require_fields(self, n=1, programs=0, seed=0)


@dataclass(frozen=True)
class ProbeOptions:
    """What `tapelens probe` is asked."""

    variables: tuple[str, ...] = ()
    """Names such as op, operand, cell[0] (default: the machine's derived variables; of streams, the pointer, every cell
    and loop state)."""
    positions: tuple[str, ...] = ()
    """Names such as cells[0] or instructions[@instruction_ptr] (default: the telling ones); of streams stream (all
    tokens pooled), ops, answers, asked, or a token such as stream[7]."""
    sites: tuple[str, ...] = ()
    """Hooks, such as blocks.0.hook_mlp_out (default: the residual stream before and after every layer)."""
    methods: tuple[str, ...] = ("logistic",)
    """logistic, ridge, mean_difference or mlp (one hidden layer), several if you like."""
    n: int | None = None
    """States, or tokens of streams, split by program into fit and held-out halves (default: as the task says)."""
    edits: int = 64
    """Pairs on which writing along each probe is judged by the machine (0: none)."""
    controls: bool = True
    """Also fit control task, shuffled labels, altered semantics and an untrained model, and measure code lengths
    (--no-controls: a quarter of the time)."""
    seed: int = 3
    """Of the states."""

    def __post_init__(self) -> None:
        require_fields(self, n=1, edits=0, methods=1, seed=0)


@dataclass(frozen=True)
class PatchOptions:
    """What `tapelens patch` is asked."""

    variables: tuple[str, ...] = ()
    """Which to swap (default: the machine's variables that one step depends on)."""
    designs: tuple[PairDesign, ...] = ("independent",)
    """independent draws base and source apart; minimal makes source from base by one edit."""
    methods: tuple[Literal["mean_difference", "das", "position_search"], ...] = ()
    """Further questions at each variable's best places: swap within the differences of class means (mean_difference)
    or a fitted subspace (das), and find the smallest set of positions (position_search)."""
    pairs_of: tuple[str, ...] = ()
    """Variables to swap together, from sources of their own, such as op+operand."""
    hooks: tuple[str, ...] = ()
    """Further places to swap at, beside the residual stream: attn.hook_z, attn.hook_z[*] (each head apart),
    mlp.hook_post, or one layer's by its whole name. Methods then ask at the best of these."""
    positions: tuple[str, ...] = ()
    """Sets of positions there, such as cells[@array_ptr] array_ptr+cells (default: blocks, pointed slots)."""
    places: int = 1
    """At how many of a variable's best places the methods ask."""
    rank: int = 4
    """Dimensions of das."""
    n_pairs: int = 256
    """Base and source pairs a variable."""
    seed: int = 4
    """Of the pairs."""

    def __post_init__(self) -> None:
        require_fields(self, n_pairs=1, rank=1, places=1, designs=1, seed=0)


@dataclass(frozen=True)
class StateOptions:
    """What `tapelens patch RUN --part` is asked, in a sweep."""

    variables: tuple[str, ...] = ()
    """Which to exchange (default: the task's, such as the pointer and cells)."""
    parts: tuple[str, ...] = ("all", "layers", "groups", "subspaces")
    """Of what the model carries: all, layers, groups (heads or channels), subspaces, or names of single ones."""
    n_pairs: int = PatchOptions.n_pairs
    """Pairs a variable whose answer should change."""
    seed: int = PatchOptions.seed
    """Of the pairs."""

    def __post_init__(self) -> None:
        require_fields(self, n_pairs=1, parts=1, seed=0)


@dataclass(frozen=True)
class SourceOptions:
    """What `tapelens sources` is asked: where values that are asked for come from."""

    n: int = 1000
    """Held-out streams."""
    seed: int = 2
    """Of these."""

    def __post_init__(self) -> None:
        require_fields(self, n=1, seed=0)


@dataclass(frozen=True)
class BeyondOptions:
    """What `tapelens eval RUN --n-steps` is asked: runs longer than those that were trained on."""

    n_steps: tuple[int, ...] = (96, 128)
    """Executed instructions of a run, several lengths; the trained one is measured too."""
    n: int = 2000
    """Held-out runs of each length."""
    seed: int = EvaluationOptions.seed
    """Of the runs."""

    def __post_init__(self) -> None:
        require_fields(self, n=1, n_steps=1, seed=0)


@dataclass(frozen=True)
class CircuitOptions:
    """What `tapelens circuit` is asked."""

    ops: tuple[str, ...] = ()
    """Opcodes and ways to freeze, such as INC VALUE_OVERFLOW (default: all opcodes of the machine)."""
    freezes: bool = False
    """Also every way to freeze."""
    measure: tuple[Measure, ...] = ("roles", "edges", "dissociation")
    """Beside the circuits: roles of their heads; their strongest edges pair by pair; dissociation of own and shared
    parts; evidence (hundreds of random circuits, spread over examples, other ablations, completeness, minimality,
    stability); approximations against exact patching of every edge; positions that edges work at; routes of edges,
    from the place where a message is read to the place where what comes of it is written. Without a name after it:
    none."""
    levels: tuple[Level, ...] = LEVELS
    """Of dissociation."""
    ablations: tuple[Ablation, ...] = ("resample",)
    """Of dissociation."""
    along: bool = False
    """Also at every checkpoint that the run kept, beside the final circuits."""
    paths: tuple[str, ...] = ()
    """Patch these paths, such as "input->a0.h1<v>->logits"."""
    n_pairs: int = 128
    """Clean and corrupted pairs an opcode, at least ten."""
    method: str = "eap_ig"
    """How edges are scored: eap_ig, eap, acdc (a search, some hundred times slower) or exact_patching."""
    steps: int = 5
    """Points of the integrated gradients of eap_ig; more where the command says that scores do not sum."""
    grid: Grid = "log"
    """Sizes that are tried: even on a log axis, or (mib) those of the benchmark of that name."""
    n_exact_pairs: int = 16
    """Of approximations, positions, routes and paths, where every edge is patched."""
    n_search_pairs: int = 6
    """Of the ACDC-style search among the approximations (0: no search)."""
    seed: int = 5
    """Of the pairs."""

    def __post_init__(self) -> None:
        require_fields(self, n_pairs=10, steps=1, n_exact_pairs=1, n_search_pairs=0, seed=0)
