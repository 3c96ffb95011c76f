"""A recipe: the edits that a person made to one forward pass, as JSON, as a result, and as the Python that does it."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any, Literal, get_args

from interp.interventions.edits import EditedAnswer, Source, ablated, edited_answer, source_with, swapped
from interp.interventions.patching import Ablation, Patch
from interp.tasks import Task
from interp.tasks.sites import Site

Kind = Literal["set", "swap", "ablate"]
STREAM = 20  # seed of the stream of held-out examples that numbers count, from 1


@dataclass(frozen=True)
class Edit:
    """One edit at one site.

    set     the site takes what it holds where `variable` is `value`: in an example one edit away, or a held-out one
    swap    the site takes what it holds in held-out example `source`; with a `variable`, it should move with it
    ablate  the site is set to zero, or to its mean or a resample over other examples
    """

    kind: Kind
    site: Site
    variable: str = ""
    value: int = 0
    source: int = 1  # number of a held-out example, from 1
    ablation: Ablation = "mean"

    @classmethod
    def from_dict(cls, values: Any) -> Edit:
        """The edit that a JSON object spells. Raises ValueError: not one, or of unknown words."""
        if not isinstance(values, Mapping):
            raise ValueError(f"an edit must be an object with kind and hook, got {type(values).__name__}")
        known = {"kind": str, "hook": str, "positions": str, "head": int, "variable": str, "value": int,
                 "source": int, "ablation": str}  # fmt: skip
        for name, value in values.items():
            if name not in known:
                raise ValueError(f"an edit has no field {name!r}; it has {', '.join(known)}")
            if type(value) is not known[name]:
                raise ValueError(f"{name} of an edit must be {known[name].__name__}, got {value!r}")
        if values.get("kind") not in get_args(Kind):
            raise ValueError(f"kind must be one of {', '.join(get_args(Kind))}, got {values.get('kind')!r}")
        if "hook" not in values:
            raise ValueError("an edit needs a hook")
        ablation = values.get("ablation", "mean")
        if ablation not in get_args(Ablation):
            raise ValueError(f"ablation must be one of {', '.join(get_args(Ablation))}, got {ablation!r}")
        if values["kind"] == "set" and not values.get("variable"):
            raise ValueError("an edit that sets a variable must name it")
        if values.get("source", 1) < 1:
            raise ValueError(f"source is the number of a held-out example, from 1; got {values['source']}")
        site = Site(values["hook"], values.get("positions", "all"), values.get("head"))
        rest = {name: values[name] for name in ("variable", "value", "source") if name in values}
        return cls(values["kind"], site, ablation=ablation, **rest)

    def to_dict(self) -> dict[str, Any]:
        """JSON-ready; `from_dict` reads it back."""
        spelled: dict[str, Any] = {"kind": self.kind, "hook": self.site.hook, "positions": self.site.positions}
        if self.site.head is not None:
            spelled["head"] = self.site.head
        if self.kind == "set":
            return spelled | {"variable": self.variable, "value": self.value}
        if self.kind == "swap":
            return spelled | {"source": self.source} | ({"variable": self.variable} if self.variable else {})
        return spelled | {"ablation": self.ablation}

    def in_words(self) -> str:
        """The edit in a phrase."""
        if self.kind == "set":
            return f"set {self.variable} to {self.value} at {self.site}"
        if self.kind == "swap":
            return f"swap {self.site} from held-out example {self.source}"
        return f"ablate ({self.ablation}) {self.site}"


@dataclass(frozen=True)
class Done:
    """What a recipe came to on an example."""

    answer: EditedAnswer
    do: Mapping[str, int]  # what the world was asked with
    sources: tuple[Source | None, ...]  # of each edit; None for an ablation


def carry_out(model: Any, task: Task, base: Any, edits: Sequence[Edit], *, at: int = 0) -> Done:
    """Make the edits, all in one pass, and hold the answer against the world's.

    Args:
        model: the hooked model.
        task: shows the example.
        base: an example of the world, one.
        edits: none leaves the model alone.
        at: the executed step of base at which they act; 0 unless `task.edits_any_step`.

    Raises:
        ValueError: an edit that cannot be made, in words; two that set one variable to different values.
    """
    patches: list[Patch] = []
    do: dict[str, int] = {}
    sources: list[Source | None] = []
    for edit in edits:
        if edit.kind == "ablate":
            patches.append(ablated(model, task, base, edit.site, edit.ablation, at=at))
            sources.append(None)
            continue
        source = _source(task, base, edit, at)
        patches.append(swapped(model, task, base, source.examples, edit.site, at=at, source_at=source.step))
        sources.append(source)
        if edit.variable:
            value = int(task.world.read(source.examples, edit.variable, source.step)[0])
            if value < 0:
                raise ValueError(f"{edit.variable} has no value in {source.words}")
            if do.get(edit.variable, value) != value:
                raise ValueError(f"{edit.variable} is set to {do[edit.variable]} and to {value}: take one edit back")
            do[edit.variable] = value
    return Done(edited_answer(model, task, base, patches, do=do, at=at), do, tuple(sources))


def python(run: str, base: Sequence[str], edits: Sequence[Edit], *, at: int = 0) -> str:
    """The lines of Python that carry the edits out, by the functions that `carry_out` calls.

    Args:
        run: the run's folder.
        base: lines that name the example `base`, with the imports that they need first; they may use run and task.
        edits: the recipe.
        at: the executed step.
    """
    functions = {"edited_answer", "Site"} if edits else {"edited_answer"}
    body, patches, do = [], [], {}
    when = f", at={at}" if at else ""
    for number, edit in enumerate(edits, start=1):
        site = ", ".join(repr(part) for part in (edit.site.hook, edit.site.positions, edit.site.head)
                         if part is not None)  # fmt: skip
        if edit.kind == "ablate":
            functions.add("ablated")
            patches.append(f"ablated(model, task, base, Site({site}), {edit.ablation!r}{when})")
            continue
        name = f"source_{number}"
        functions.add("swapped")
        if edit.kind == "set":
            functions.add("source_with")
            body.append(f"{name} = source_with(task, base, {edit.variable!r}, {edit.value}{when})")
            example, step = f"{name}.examples", f"{name}.step"
            do[edit.variable] = str(edit.value)
        else:
            body.append(f'{name} = task.draw(1, seed={STREAM}, start={edit.source - 1}, split="evaluation")')
            example, step = name, "0"
            if edit.variable:
                do[edit.variable] = f"int(task.world.read({name}, {edit.variable!r})[0])"
        steps = f"{when}, source_at={step}" if at or edit.kind == "set" else ""
        patches.append(f"swapped(model, task, base, {example}, Site({site}){steps})")
    imports = [line for line in base if line.startswith(("import ", "from "))]
    lines = [
        *imports, "import interp", f"from interp.interventions import {', '.join(sorted(functions))}", "",
        f"run = interp.load({run!r})", "task, model = run.task, run.model",
        *(line for line in base if line not in imports), *body,
    ]  # fmt: skip
    lines += ["patches = [", *(f"    {patch}," for patch in patches), "]"] if patches else ["patches = []"]
    set_to = "{" + ", ".join(f"{name!r}: {value}" for name, value in do.items()) + "}"
    lines += [
        f"answer = edited_answer(model, task, base, patches, do={set_to}{when})",
        "for name, was, now, should in zip(answer.names, answer.before, answer.after, answer.expected):",
        "    if was != now or now != should:",
        "        print(name, *(task.vocab[token] for token in (was, now, should)))",
    ]
    return "\n".join(lines) + "\n"


def _source(task: Task, base: Any, edit: Edit, at: int) -> Source:
    if edit.kind == "set":
        return source_with(task, base, edit.variable, edit.value, at=at, seed=STREAM)
    examples = task.draw(1, seed=STREAM, start=edit.source - 1, split="evaluation")
    return Source(examples, 0, f"held-out example {edit.source}")
