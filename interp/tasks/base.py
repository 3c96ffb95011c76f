"""What a task is: a way of showing a world's examples to a model, and of asking what comes out."""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Callable, Mapping
from dataclasses import fields
from typing import TYPE_CHECKING, Any, ClassVar, Literal

import numpy as np
import pandas as pd
import torch.nn.functional as F
from torch import Tensor

from interp.tasks.answers import exact_matches, macro_average, read_answers
from interp.tasks.batch import Batch
from interp.tasks.contrast import Contrast
from interp.tasks.counterfactual import Counterfactual, PairDesign, draw_counterfactual
from interp.tasks.options import NoOptions, options_of
from interp.tasks.sites import block_names, resolve
from interp.worlds import as_world
from interp.worlds.base import Split, Strata

if TYPE_CHECKING:
    from interp.tasks.state_pairs import Kind, StatePairs
    from interp.tasks.value_sources import ValueSources


class Task(ABC):
    """One way of asking a model about a world.

    Attributes:
        name: its key in `TASKS`.
        world: what is true.
        options: what is chosen about it besides the world, an `Options`.
        attention_dir: the attention a transformer needs for it.
        positions: the positions that suit it: block-wise where a position is always the same slot.
        has_strata: whether an example belongs to one stratum of the world, so that these can be drawn by weight.
        words: what the model is shown and asked, in a sentence or two for a newcomer; "" where nobody wrote them.
        answers_state: whether the answer is the world's next state, slot by slot, so that it can be gone on from.
        tells_stream: whether tokens tell executed steps one after the other, and never what the world keeps meanwhile.
        shows_answer: whether the answer stands in the tokens, so that a counterfactual one has to be given to `render`.
        edits_any_step: whether a variable may be set at any executed step of an example, not at its first alone.
        whole_answers: whether `answer` gives the tokens at `answer_positions`, [n, k], that are right or wrong as one
            whole; confidence, partial credit and examples of failures can be taken of such answers.
        writes: whether a model writes its answer token by token as it likes, so that answers can be sampled and judged:
            `write`, `finished`, `right`, `credit`.
        has_plan: whether a memory of slots is known that does each example, see `SlotsTask.memories`.
        attention_chunk: c > 0: chunks of c tokens follow from the one before, so that attention need not reach
            further; 0: attention reaches everything.
        n_probed: how many examples, or tokens of a set of `token_places`, probes are fitted and scored on by default.
        refused_contrasts: contrasts that a world has and the task has not, and why.
    """

    name: ClassVar[str]
    words: ClassVar[str] = ""
    Options: ClassVar[type] = NoOptions
    attention_dir: Literal["causal", "bidirectional"]
    positions: Literal["block", "learned"] = "block"
    has_strata: bool = True
    answers_state: bool = False
    tells_stream: bool = False
    shows_answer: bool = False
    edits_any_step: bool = False
    whole_answers: bool = False
    writes: bool = False
    has_plan: bool = False
    attention_chunk: int = 0
    n_probed: int = 4_000
    refused_contrasts: Mapping[str, str] = {}  # a constant of the class
    world: Any  # a World; a task about one world says which

    def __init__(self, world: Any, options: Any = None):
        self.world = as_world(world)
        self.options: Any = options_of(self.name, self.Options, options)

    # What a model sees.

    @property
    @abstractmethod
    def vocab(self) -> tuple[str, ...]:
        """Token names in id order."""

    @property
    @abstractmethod
    def position_names(self) -> tuple[str, ...]:
        """A name for each of the `n_ctx` token positions."""

    @property
    def position_roles(self) -> tuple[int, ...]:
        """For block-wise positions: the role of each token position (its block, or which bracket)."""
        return (0,) * self.n_ctx

    @property
    def position_indices(self) -> tuple[int, ...]:
        """For block-wise positions: the slot index inside the block."""
        return tuple(range(self.n_ctx))

    @property
    def n_ctx(self) -> int:
        return len(self.position_names)

    @property
    @abstractmethod
    def prompt_positions(self) -> slice:
        """The token positions of what is given."""

    @property
    @abstractmethod
    def answer_positions(self) -> np.ndarray:
        """The token positions whose logits say the answer, int64 [k], in the answer's order.

        Where an answer's place differs between examples, each `Counterfactual` and `Pairs` has positions of its own.
        """

    @property
    def content(self) -> np.ndarray:
        """Which parts of the answer say something, bool [k]: False at punctuation, which is always the same."""
        return np.ones(len(self.answer_positions), dtype=bool)

    @abstractmethod
    def render(self, examples: Any, answers: np.ndarray | None = None) -> Batch:
        """The batch that shows these examples; `answers`, tokens [n, k], replace the world's."""

    @abstractmethod
    def expected(self, answer: Any) -> np.ndarray:
        """A world's answer as the tokens that should come out at `answer_positions`, int64 [n, k]; -1: none."""

    # Examples.

    def draw(
        self,
        n: int,
        *,
        seed: int,
        start: int = 0,
        split: Split = "evaluation",
        weights: np.ndarray | None = None,
    ) -> Any:
        """The examples that the batches of `sample` show; row i depends only on (seed, start + i). See `World.draw`."""
        return self.world.draw(n, seed=seed, start=start, split=split, weights=weights)

    def sample(
        self,
        n: int,
        *,
        seed: int,
        start: int = 0,
        split: Split = "evaluation",
        weights: np.ndarray | None = None,
    ) -> Batch:
        """Draw `n` examples and show them; row i depends only on (seed, start + i)."""
        return self.render(self.draw(n, seed=seed, start=start, split=split, weights=weights))

    def groups(self, examples: Any) -> np.ndarray:
        """A hash of each example's unit, uint64 [n]: what is held out whole, and what intervals are taken over."""
        return self.world.groups(examples)

    def strata(self, batch: Batch, at: int | np.ndarray = 0) -> Strata:
        """The world's stratum of each example, where it has executed steps that of step `at`."""
        return self.world.strata(batch.examples)

    def strata_weights(self, balance: str) -> np.ndarray | None:
        """Shares of strata for `draw`; None where examples belong to none, and for the natural distribution."""
        return self.world.strata_weights(balance) if self.has_strata else None

    def trim(self, batch: Batch) -> Batch:
        """The batch as training needs it: without positions past its longest example, which nothing is learned from."""
        return batch

    def resized(self, n_steps: int) -> Task:
        """The task with examples that span another number of executed steps.

        Raises:
            ValueError: its examples span one step, always.
        """
        if not hasattr(self.options, "n_steps"):
            raise ValueError(f"an example of the task {self.name} spans one step; got n_steps {n_steps}")
        values = {each.name: getattr(self.options, each.name) for each in fields(self.options)}
        return type(self)(self.world, self.Options(**(values | {"n_steps": n_steps})))

    def notice_before_sharing(self) -> str | None:
        """What a person should know before a run of this task is shown to others, in a sentence: that its files hold
        something of what it was trained on, say. None: nothing."""
        return None

    # What a model answers.

    def loss(self, logits: Tensor, batch: Batch) -> Tensor:
        """Mean cross-entropy over the asked tokens, nats a token, from logits [batch, pos, d_vocab]."""
        total = F.cross_entropy(logits.flatten(0, 1), batch.targets.flatten(), ignore_index=-1, reduction="sum")
        return total / max(1, int((batch.targets >= 0).sum()))

    def answer(self, model: Callable[[Tensor], Tensor], batch: Batch) -> Tensor:
        """The model's greedy answer to a batch, in the form that `score` takes; hooks on the model count.

        Here what it says at `answer_positions`, long [n, k]. A task that shows the answer gives only the rest to the
        model: the answer is the model's to write.
        """
        return read_answers(model(batch.tokens), self.answer_positions).argmax(dim=-1)

    def finished(self, answers: Tensor) -> Tensor:
        """Answers [n, k] that a model wrote token by token, in the form that `score` takes: -1 where one is over."""
        return answers

    def score(self, predicted: Tensor, batch: Batch) -> pd.DataFrame:
        """How much of the answers is right, by the world's strata, as rows of (op, stratum, metric, estimate, …, n).

        Here EXACT_MATCH, whole answers; intervals are Wilson intervals over examples.
        """
        expected = read_answers(batch.targets[..., None], self.answer_positions)[..., 0]
        return exact_matches((predicted.cpu() == expected.cpu()).all(dim=1).numpy(), self.strata(batch))

    def also_measured(self, model: Any, *, n: int, split: Split) -> list[dict[str, Any]]:
        """What is measured of a model beside its answers, on at most `n` examples of a split, as rows; here nothing."""
        return []

    def right(self, predicted: Tensor, batch: Batch) -> np.ndarray:
        """Whether each answer [n, k] is the world's, bool [n]; positions at which none is expected aside."""
        expected = self.expected(self.world.answer(batch.examples))
        return ((predicted.cpu().numpy() == expected) | (expected < 0)).all(axis=1)

    def lengths(self, batch: Batch) -> np.ndarray | None:
        """How many executed steps each example runs, int64 [n], where that is what scores go by; None elsewhere."""
        return None

    def facts(self) -> tuple[tuple[str, int] | None, ...]:
        """What each of the k tokens of an answer tells of the way to it: a variable, and after how many executed
        steps; None for a token that is the answer itself. () where there are no such tokens."""
        return ()

    def given(self, batch: Batch) -> np.ndarray | None:
        """The tokens that an answer would repeat if nothing changed, int64 [n, k]; None where it repeats nothing."""
        return None

    @property
    def answer_names(self) -> tuple[str, ...]:
        """A name for each of the k tokens of an answer."""
        return tuple(self.position_names[at] for at in self.answer_positions)

    def shown_units(self, examples: Any) -> np.ndarray | None:
        """A hash of what a model is shown of each example, uint64 [n], where that can be less than the unit that is
        held out; None where the model is shown the whole of it."""
        return None

    def headline(self, scores: pd.DataFrame) -> float:
        """The one number about rows of `score`: the mean of exact match over strata, each counted once."""
        return macro_average(scores)

    # What is asked of a model's inside.

    def labels(self, batch: Batch, name: str) -> np.ndarray:
        """The variable's value for each example, int64 [n], or at each position [n, pos]; -1 where it is undefined.

        Raises:
            ValueError: the world has no such variable.
        """
        return self.world.read(batch.examples, name)

    def control_types(self, batch: Batch, name: str) -> np.ndarray:
        """The input type of each example for the control task (Hewitt & Liang 2019), int64 [n], or at each position
        [n, pos]."""
        return self.world.types(batch.examples, name)

    def times(self, batch: Batch) -> np.ndarray:
        """The executed step that each token is about, int64 [n, pos]; -1 for none: past the end of an example."""
        return np.zeros(batch.tokens.shape, dtype=np.int64)

    def ages(self, batch: Batch) -> Mapping[str, np.ndarray]:
        """For families of variables that the tokens reveal now and then: how many steps ago each member was revealed
        last, int64 [n, pos, members]; -1: never."""
        return {}

    def variables(self) -> list[str]:
        """What is worth probing first."""
        return self.world.main_variables()

    def swappable(self) -> list[str]:
        """What is worth swapping first; [] where the world has no `do`."""
        if "do" not in self.world.capabilities:
            return []
        return [name for name in self.world.main_variables() if self.world.variable(name).settable]

    def blocks(self) -> tuple[str, ...]:
        """The blocks of slots that positions are named by, in order."""
        return block_names(self.position_names)

    def position_sets(self) -> list[str]:
        """Where to swap first: each block, and all positions (a ceiling)."""
        return [*self.blocks(), "all"]

    def pointed_places(self) -> tuple[str, ...]:
        """The slots that a variable points to, in each example its own, as `resolve` spells them."""
        return ()

    def probe_places(self) -> list[str]:
        """Where to probe first: the first slot of each block; or sets of tokens, see `token_places`."""
        return [f"{block}[0]" for block in self.blocks()]

    def token_places(self) -> Mapping[str, Callable[[Any], np.ndarray]]:
        """Sets of tokens that one probe reads pooled, by name: which tokens of a batch belong, bool [n, pos].

        {} where a place to probe is one position of each example.
        """
        return {}

    def spell(self, examples: Any) -> np.ndarray:
        """Tokens that name each example in files, int64 [n, spelled_length]: what is given of it."""
        return self.render(examples).tokens[:, self.prompt_positions].numpy()

    @property
    def spelled_length(self) -> int:
        """How many tokens `spell` gives an example."""
        return len(range(self.n_ctx)[self.prompt_positions])

    def resolve(self, positions: str, batch: Batch, at: int | np.ndarray = 0) -> Tensor:
        """The token positions of a named set in each example, long [n, k]; see `interp.tasks.sites`.

        at: the executed step at which pointers are read, for all examples or one each.

        Raises:
            ValueError: an unknown name, a pointer that leaves its block or is undefined, or parts that overlap.
        """
        return resolve(
            self.position_names, positions, len(batch), lambda name: self.world.read(batch.examples, name, at)
        )

    def counterfactual(
        self,
        n: int,
        name: str,
        *,
        seed: int,
        design: PairDesign = "independent",
        split: Split = "evaluation",
        weights: np.ndarray | None = None,
    ) -> Counterfactual:
        """Pairs (base, source) and what the world says when `name` takes its value from source.

        `independent` draws both at random. `minimal` makes source from base by one edit of a stored ancestor of the
        variable (or of itself) that changes its value. Pairs whose counterfactual has no value are redrawn.

        Raises:
            ValueError: a world without `do`, an unknown variable, one that cannot be set, or one that has a value too
                rarely.
        """
        return draw_counterfactual(self, n, name, seed=seed, design=design, split=split, weights=weights)

    def edit_times(
        self, base: Any, source: Any, name: str, rng: np.random.Generator
    ) -> tuple[int | np.ndarray, int | np.ndarray]:
        """At which executed step of base a variable is set, and of which step of source its value is; 0, or [n]."""
        return 0, 0

    def asked_after(self, examples: Any, at: int | np.ndarray) -> tuple[np.ndarray, np.ndarray]:
        """Where the answer to an edit at executed step `at` is read, positions [n, k], and which step it answers, [n].

        Step −1: nothing is asked after the edit.
        """
        n = len(examples)
        return np.tile(self.answer_positions, (n, 1)), np.broadcast_to(np.asarray(at, dtype=np.int64), n)

    def answered(self, answer: Any, judged: np.ndarray) -> np.ndarray:
        """What should come out there, of an edited answer: int64 [n, k]; −1 where the world has no answer."""
        return np.where(answer.valid[:, None], self.expected(answer), -1)

    @property
    def has_state_pairs(self) -> bool:
        """Whether `state_pairs` can be drawn: examples are streams through which a model carries a state."""
        return False

    @property
    def has_value_sources(self) -> bool:
        """Whether examples ask for values that an earlier instruction has set, so that `value_sources` are known."""
        return False

    def value_sources(self, batch: Batch) -> ValueSources:
        """Each value that a batch asks for, and what every token before it was to its cell.

        Raises:
            ValueError: the task asks for no such value.
        """
        raise ValueError(f"the task {self.name} asks for no value that an earlier instruction has set")

    def state_variables(self) -> list[str]:
        """What `state_pairs` sets first."""
        return []

    def has_bystanders(self, name: str) -> bool:
        """Whether some answers behind an edit of the variable do not hang on it."""
        return False

    def state_pairs(
        self, n: int, name: str, *, seed: int, split: Split = "evaluation", kind: Kind = "stored"
    ) -> StatePairs:
        """Pairs for state interchange: `name` set to source's value at one executed step of base.

        Raises:
            ValueError: the task tells no stream, another variable, or pairs that are found too rarely.
        """
        raise ValueError(f"the task {self.name} tells no stream through which a state is carried")

    def can_swap(self, name: str) -> bool:
        """Whether `counterfactual` takes the variable."""
        return "do" in self.world.capabilities and self.world.variable(name).settable

    def has_minimal_pairs(self, name: str) -> bool:
        """Whether one edit of a stored variable can change `name`; a buffer's length, say, takes more."""
        return bool(self.edited_ancestors(name))

    def edited_ancestors(self, name: str) -> tuple[str, ...]:
        """The stored variables of which a minimal pair edits one, chosen per pair; () where no edit decides `name`."""
        return self.world.stored_ancestors(name)

    def contrasts(self) -> Mapping[str, Contrast]:
        """Ways to draw clean and corrupted examples that differ in one thing, by name; {} where there are none."""
        return {}

    def contrast(self, name: str) -> Contrast:
        """One of `contrasts`. Raises ValueError with the known names where there is none."""
        known = self.contrasts()
        if name not in known:
            why = f": {self.refused_contrasts[name]}" if name in self.refused_contrasts else ""
            has = ", ".join(known) or "none, so no circuit can be looked for"
            raise ValueError(f"the task {self.name} has no contrast {name!r}{why}; it has {has}")
        return known[name]
