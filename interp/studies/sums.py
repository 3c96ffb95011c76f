"""What a model of addition does, and how: seen from outside, and by interventions that two accounts judge differently.

1. Exact match by longest cascade, apart for pairs that were held out and for sums with an operand that no training
   example has; and by length, on longer numbers than those trained on.
2. Does a + b give the answer of b + a, and how far apart are the logits of the right tokens?
3. Rival accounts of the carry, on pairs where they disagree: a place that lets a carry through. The stream of a sum in
   which none comes into it is put into one in which one does, all else at the place being equal. In the ripple model
   the digits above follow; in the look-ahead model this digit alone does.
4. The clock: what the stream says of a digit, taken apart into waves over its values (Kantamneni and Tegmark 2025);
   one frequency at a time is taken out, beside as many random directions.
5. A bag of heuristics: neurons that fire on simple facts about a place, taken out (`sum_heuristics`).
6. Where every head looks while a digit is said: on average, and on one sum.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import replace
from typing import Any

import numpy as np
import pandas as pd
import torch

from interp.interventions import residual_sites, swapped_answers
from interp.models import resize
from interp.results import Aggregation, Control, IntervalKind, Method, Metric, rows_frame, wilson_interval
from interp.runs import Run, RunError
from interp.studies.holding import Progress, quiet
from interp.studies.sum_heuristics import heuristic_rows
from interp.tasks import TASKS
from interp.tasks.addition_contrasts import exchanged
from interp.worlds.addition import NAMES
from interp.worlds.addition_digits import LOOK_AHEAD
from interp.worlds.base import in_split

SEED = 8
PAIRS, OPERANDS = "unseen pairs", "unseen operands"
RIPPLE = "ripple"
PICTURE = (101, 1002)
BALANCED, AS_THEY_COME = "balanced", "as they come"
FIRST_INDEX = 5  # of slots on longer numbers, where there is room; chosen on validation
CHOSEN_AT = 15  # digits, on validation: which of several trainings is the best


def measure_sums(
    run: Run, *, n: int = 2000, n_pairs: int = 128, n_held_out: int = 2000, progress: Progress = quiet
) -> pd.DataFrame:
    """All of it, as rows of the tidy frame.

    Args:
        run: of a model of addition.
        n: sums of each measurement.
        n_pairs: pairs on which the accounts disagree, for each place.
        n_held_out: held-out sums of each kind, answered whole.
        progress: told how far it is.

    Raises:
        RunError: the run is about another world.
    """
    if run.config.world.name != "addition":
        raise RunError(f"{run.path} is about the world {run.config.world.name}; this study is about addition")
    progress(0, 6, "strata")
    rows: list[dict[str, Any]] = list(accuracy_rows(run, n=n_held_out))
    parts = {
        "swapped summands": commutation_rows,
        "clock": clock_rows,
        "heuristics": heuristic_rows,
    }
    for number, (name, measured) in enumerate(parts.items(), start=1):
        progress(number, 6, name)
        rows += measured(run, n=n)
    progress(4, 6, "rival accounts")
    rows += rival_rows(run, n=n_pairs)
    progress(5, 6, "attention")
    rows += attention_rows(run, n=n_pairs)
    return run.identified(rows_frame(rows))


def shares(right: np.ndarray, **columns: Any) -> dict[str, Any]:
    """A row of a share of right answers, bool [n], with its Wilson interval."""
    low, high = wilson_interval(int(right.sum()), len(right))
    return {
        **columns,
        "method": Method.GREEDY,
        "metric": Metric.EXACT_MATCH,
        "aggregation": Aggregation.MEAN,
        "estimate": float(right.mean()),
        "ci_low": low,
        "ci_high": high,
        "interval_kind": IntervalKind.WILSON,
        "n": len(right),
    }


def answered_right(model: Any, task: Any, examples: Any) -> np.ndarray:
    """Whether each sum is answered right, bool [n]."""
    found = []
    with torch.no_grad():
        for start in range(0, len(examples), 256):
            batch = task.render(examples[start : start + 256])
            found.append(task.right(model.answer(task, batch), batch))
    return np.concatenate(found)


def accuracy_rows(run: Run, *, n: int) -> Iterator[dict[str, Any]]:
    """Exact match by longest cascade; apart for held-out pairs of known operands and for unknown operands."""
    world, task = run.config.world, run.task
    keeps = {
        PAIRS: lambda rows: in_split(world.groups(rows), "evaluation") & ~world.unseen(rows),  # type: ignore[attr-defined]
        OPERANDS: lambda rows: world.unseen(rows),  # type: ignore[attr-defined]
    }
    for kind, keep in keeps.items():
        examples = world.draw_where(keep, n, seed=SEED, weights=world.strata_weights("branches"))  # type: ignore[attr-defined]
        right, strata = answered_right(run.model, task, examples), world.strata(examples)
        yield shares(right, stratum=kind)
        for number, name in enumerate(strata.names):
            if (members := strata.number == number).any():
                yield shares(right[members], stratum=kind, op=name)


def length_rows(
    run: Run, digits: tuple[int, ...], *, n: int, split: Any = "evaluation", progress: Progress = quiet
) -> list[dict[str, Any]]:
    """Exact match on two numbers of exactly so many digits: as they come, and with all cascades equally often.

    Where training shifted the indices of slots over a table, they begin at `FIRST_INDEX`: an index below it was shown
    only by the few offsets that are smaller.
    """
    rows = []
    for number, length in enumerate(digits):
        progress(number, len(digits), f"{length} digits")
        world = run.config.world.changed(n_digits=length, least_digits=length)
        task = TASKS[run.config.task](world, run.config.options)
        changes = {"n_ctx": task.n_ctx}
        if run.config.model.positional_embedding_type.startswith("block"):
            changes |= {"position_roles": task.position_roles, "position_indices": task.position_indices}
        model = resize(run.model, replace(run.model.cfg.as_written, **changes)).eval()
        if getattr(run.config.model, "index_table_size", 0):
            indices: Any = model.pos_embed
            indices.offset = min(FIRST_INDEX, indices.most_offset)
        for design, weights in ((AS_THEY_COME, None), (BALANCED, world.strata_weights("branches"))):
            examples = world.draw(n, seed=SEED, split=split, weights=weights)
            right = answered_right(model, task, examples)
            rows.append(shares(right, stratum=f"{length} digits", pair_design=design, part=split, time=length))
    return rows


def seed_length_rows(
    runs: list[Run], digits: tuple[int, ...], *, n: int, n_chosen: int = 2000, progress: Progress = quiet
) -> pd.DataFrame:
    """`length_rows` of several trainings, on `n` evaluation sums a length; and, for choosing one, on `n_chosen`
    validation sums at `CHOSEN_AT` digits and the next length above it.

    Raises:
        RunError: a run is about another world.
    """
    frames, above = [], tuple(size for size in sorted(digits) if size > CHOSEN_AT)[:1]
    for number, run in enumerate(runs):
        if run.config.world.name != "addition":
            raise RunError(f"{run.path} is about the world {run.config.world.name}; this study is about addition")
        progress(number, len(runs), run.name)
        chosen = length_rows(run, (CHOSEN_AT, *above), n=n_chosen, split="validation")
        frames.append(run.identified(rows_frame(chosen + length_rows(run, digits, n=n))))
    return pd.concat(frames, ignore_index=True)


def commutation_rows(run: Run, *, n: int) -> Iterator[dict[str, Any]]:
    """Whether the answer is the same with the summands exchanged, and how far the right tokens' logits move."""
    world, task = run.config.world, run.task
    examples = world.draw(n, seed=SEED + 1, weights=world.strata_weights("branches"))
    digits = world.digits(examples)  # type: ignore[attr-defined]
    swapped = type(examples)(digits[:, ::-1].reshape(len(examples), -1))
    with torch.no_grad():
        batches = [task.render(each) for each in (examples, swapped)]
        one, other = (run.model.answer(task, each) for each in batches)
        where = batches[0].targets >= 0
        digit = batches[0].targets[where]
        moved = [run.model(each.tokens)[where].gather(-1, digit[:, None]) for each in batches]
    same = (one == other).all(dim=1).numpy()
    distance = (moved[0] - moved[1]).abs().numpy()
    yield shares(same, stratum="swapped summands") | {"metric": Metric.COMMUTES}
    common = {"method": Method.GREEDY, "metric": Metric.LOGIT_CHANGE, "n": len(distance)}
    yield {**common, "aggregation": Aggregation.MEAN, "estimate": float(distance.mean())}
    spread = {"aggregation": Aggregation.MEDIAN, "interval_kind": IntervalKind.EXAMPLES}
    low, mid, high = (float(each) for each in np.quantile(distance, (0.05, 0.5, 0.95)))
    yield {**common, **spread, "estimate": mid, "ci_low": low, "ci_high": high}


def rival_rows(run: Run, *, n: int) -> Iterator[dict[str, Any]]:
    """IIA of the carry into each place under both accounts, at every layer and asking position."""
    model, task = run.model, run.task
    ripple: Any = run.config.world.changed(carries=RIPPLE)
    worlds = {RIPPLE: ripple, LOOK_AHEAD: ripple.changed(carries=LOOK_AHEAD)}
    asking = [task.position_names[at] for at in task.answer_positions[: ripple.n_digits + 1]]
    where = torch.from_numpy(task.answer_positions)
    for place in range(1, ripple.n_digits):
        base, source = _disagreeing(task, ripple, place, n)
        if len(base) < n // 4:
            continue
        set_to = {f"carry_in[{place}]": np.zeros(len(base), dtype=np.int64)}
        positions = where.expand(len(base), -1)
        for account, world in worlds.items():
            expected = task.expected(world.answer(base, do=set_to))
            shown = [task.render(each, expected) for each in (base, source)]
            wanted = torch.from_numpy(expected)

            def judged(answers: torch.Tensor, wanted: torch.Tensor = wanted) -> np.ndarray:
                return ((answers == wanted) | (wanted < 0)).all(dim=1).numpy()

            columns = {"variable": f"carry_in[{place}]", "stratum": account, "pair_design": "propagates"}
            with torch.no_grad():
                alone = model(shown[0].tokens)[:, where].argmax(dim=-1)
            iia = {"metric": Metric.IIA, "method": Method.FULL_VECTOR}
            yield shares(judged(alone), **columns) | iia | {"control": Control.UNPATCHED}
            for site in residual_sites(model, asking):
                answers = swapped_answers(model, task, shown[0], [(site, shown[1])], positions=positions)
                row = shares(judged(answers), **columns, site=site.hook, position=site.positions)
                yield row | iia


def _disagreeing(task: Any, world: Any, place: int, n: int) -> tuple[Any, Any]:
    """Sums in which a carry is made right below a place that lets it through, and the same without that carry."""
    bases, sources, found = [], [], 0
    for block in range(200):
        drawn = task.draw(512, seed=SEED + 2, start=512 * block, weights=world.strata_weights("branches"))
        made = world.read(drawn, f"generate[{place - 1}]") == 1
        base = drawn[np.flatnonzero(made & (world.read(drawn, f"propagate[{place}]") == 1))]
        bases.append(base)
        target = np.full(len(base), place)
        sources.append(exchanged(task, "carry", base, target, seed=SEED + 3, start=512 * block))
        found += len(base)
        if found >= n:
            break
    return tuple(type(parts[0]).concatenate(parts)[:n] for parts in (bases, sources))  # type: ignore[return-value]


def clock_rows(run: Run, *, n: int) -> Iterator[dict[str, Any]]:
    """Token accuracy with one frequency of each said digit taken out of the stream where it is said."""
    model, task, world = run.model, run.task, run.config.world
    weights = world.strata_weights("branches")
    fit = task.render(world.draw(n, seed=SEED + 4, split="train", weights=weights))
    held = task.render(world.draw(n // 2, seed=SEED + 4, weights=weights))
    where, generator = torch.from_numpy(task.answer_positions[:-1]), torch.Generator().manual_seed(SEED)
    digit = fit.targets[:, where]
    for hook in model.residual_hooks()[1:]:
        with torch.no_grad():
            _, cache = model.run_with_cache(fit.tokens, names_filter=[hook])
        seen = cache[hook][:, where]  # [n, digit, d_model]
        for frequency in range(1, world.base // 2 + 1):  # type: ignore[attr-defined]
            bases = [_wave(seen[:, i], digit[:, i], frequency, world.base) for i in range(len(where))]  # type: ignore[attr-defined]
            random = [torch.linalg.qr(torch.randn(each.T.shape, generator=generator))[0].T for each in bases]
            for control, chosen in ((None, bases), (Control.RANDOM_SUBSPACE, random)):
                right = _without(model, task, held, hook, where, chosen, seen.mean(dim=0))
                columns = {"site": hook, "part": f"frequency {frequency}", "rank": len(chosen[0]), "control": control}
                yield shares(right, **columns) | {"method": Method.ABLATION, "metric": Metric.TOKEN_ACCURACY}


def _wave(x: torch.Tensor, labels: torch.Tensor, frequency: int, base: int) -> torch.Tensor:
    """The directions [1 or 2, d_model] in which the means of activations [n, d_model] by digit run round `frequency`
    times."""
    present = torch.unique(labels[labels >= 0])
    means = torch.stack([x[labels == digit].mean(dim=0) for digit in present])
    angle = 2 * torch.pi * frequency * present / base
    waves = torch.stack([angle.cos(), angle.sin()] if 2 * frequency < base else [angle.cos()])
    return torch.linalg.qr((waves @ (means - means.mean(dim=0))).T)[0].T


def _without(
    model: Any, task: Any, batch: Any, hook: str, where: torch.Tensor, bases: list[torch.Tensor], means: torch.Tensor
) -> np.ndarray:
    """Which asked digits are right with the subspaces of each position at their mean, bool [asked digits]."""

    def ablate(activation: torch.Tensor, hook: Any) -> torch.Tensor:
        changed = activation.clone()
        for i, (at, basis) in enumerate(zip(where.tolist(), bases, strict=True)):
            off = activation[:, at] - means[i]
            changed[:, at] = activation[:, at] - off @ basis.T @ basis
        return changed

    with torch.no_grad():
        logits = model.run_with_hooks(batch.tokens, fwd_hooks=[(hook, ablate)])
    digit = batch.targets[:, where]
    return (logits[:, where].argmax(dim=-1) == digit)[digit >= 0].numpy()


def attention_rows(run: Run, *, n: int) -> Iterator[dict[str, Any]]:
    """Where each head looks while digits are said: shares by what stands there, on average; and token by token on one
    sum, where it fits."""
    task, world = run.task, run.config.world
    batch = task.sample(n, seed=SEED + 5, weights=world.strata_weights("branches"))
    for layer, head, pattern in _patterns(run, batch):
        for part, share in _looked_at(task, pattern.mean(axis=0)).items():
            yield _attention(layer, head, share, n) | {"part": part}
    if world.n_digits >= 4 and world.base == 10 and world.n_operands == 2:  # type: ignore[attr-defined]
        example = world.examples([PICTURE])  # type: ignore[attr-defined]
        text = world.text(example, reverse=task.reverse)[0]  # type: ignore[attr-defined]
        for layer, head, pattern in _patterns(run, task.render(example)):
            for query in task.answer_positions[: world.n_digits + 1]:  # type: ignore[attr-defined]
                for key in range(query + 1):
                    places = {"position": task.position_names[query], "part": task.position_names[key]}
                    yield _attention(layer, head, float(pattern[0, query, key]), 1) | places | {"stratum": text}


def _attention(layer: int, head: int, share: float, n: int) -> dict[str, Any]:
    site = f"blocks.{layer}.attn.hook_pattern[{head}]"
    return {"site": site, "metric": Metric.ATTENTION, "aggregation": Aggregation.MEAN, "estimate": share, "n": n}


def _patterns(run: Run, batch: Any) -> Iterator[tuple[int, int, np.ndarray]]:
    """Layer, head and its pattern on a batch, [n, query, key]."""
    names = [f"blocks.{layer}.attn.hook_pattern" for layer in range(run.model.cfg.n_layers)]
    with torch.no_grad():
        _, cache = run.model.run_with_cache(batch.tokens, names_filter=names)
    for layer, name in enumerate(names):
        for head in range(cache[name].shape[1]):
            yield layer, head, cache[name][:, head].numpy()


def _looked_at(task: Any, pattern: np.ndarray) -> dict[str, float]:
    """Shares of a mean pattern [query, key] by what stands at the key, averaged over the asked digits."""
    n_digits, shares = task.world.n_digits, {}
    fields = NAMES[: task.world.n_operands]
    at = {name: position for position, name in enumerate(task.position_names)}
    for slot in range(n_digits):
        query = pattern[task.answer_positions[slot]]
        places = {
            "the digits of the place": [at[f"{each}[{slot}]"] for each in fields],
            "the digits one place below": [at[f"{each}[{slot - 1}]"] for each in fields if slot],
            "digits further below": [at[f"{each}[{i}]"] for each in fields for i in range(slot - 1)],
            "where lower digits are said": [int(each) for each in task.answer_positions[:slot]],
            "itself": [int(task.answer_positions[slot])],
        }
        for part, keys in places.items():
            shares[part] = shares.get(part, 0.0) + float(query[keys].sum()) / n_digits
    return shares
