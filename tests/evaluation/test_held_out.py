"""Counts, partial credit, reliability and failures, against models whose mistakes are known."""

from __future__ import annotations

import math

import numpy as np
import pytest
import torch
from oracle import SPEC, Oracle

from cython_vm import Op, Transition, encode, step
from interp.evaluation.confidence import Reliability
from interp.evaluation.credit import PartialCredit
from interp.evaluation.failures import Failures
from interp.models import build_model
from interp.results import Aggregation, Metric, records, select, wilson_interval
from interp.tasks import TASKS, Batch, Task
from interp.training import evaluate
from interp.training.presets import transformer_for
from interp.training.tally import Tally, macro_row
from interp.worlds import as_world

TASK = TASKS["step_inplace"](as_world(SPEC))


def keep_the_cell(answer: np.ndarray, transition: Transition, tokens: np.ndarray) -> None:
    """INC moves on but leaves the cell as it was: one of the three tokens that it changes is wrong."""
    cells = SPEC.layout.slice("cells")
    rows = transition.latents["op"] == Op.INC
    answer[rows, cells] = tokens[rows, cells]


def give_the_input_back(answer: np.ndarray, transition: Transition, tokens: np.ndarray) -> None:
    answer[:] = tokens


def value(rows: list[dict], **columns: str) -> float:
    found = [row["estimate"] for row in rows if all(row.get(name) == each for name, each in columns.items())]
    assert len(found) == 1
    return found[0]


def test_batches_add_up_to_the_whole() -> None:
    model = Oracle(spoil=keep_the_cell)
    whole = evaluate(model, TASK, n=300, seed=5, batch_size=300)
    assert whole.equals(evaluate(model, TASK, n=300, seed=5, batch_size=37))
    # Any model's rows are those of the task's own score on all examples at once.
    batch = TASK.sample(300, seed=5, weights=None)
    answer = TASK.answer(model, batch)
    natural = evaluate(model, TASK, n=300, seed=5, balance="natural", batch_size=64)
    for row in records(TASK.score(answer, batch)):
        same = select(natural, op=row["op"], stratum=row["stratum"], position=row["position"], metric=row["metric"])
        assert same[["estimate", "ci_low", "ci_high", "n"]].values.tolist() == [
            pytest.approx([row["estimate"], row["ci_low"], row["ci_high"], row["n"]])
        ]


def test_the_machine_is_right_and_copying_is_right_where_nothing_changes() -> None:
    assert evaluate(Oracle(), TASK, n=200, seed=1)["estimate"].to_numpy().min() == 1
    copied = evaluate(Oracle(spoil=give_the_input_back), TASK, n=400, seed=1)
    exact = select(copied, metric=Metric.EXACT_MATCH, aggregation=Aggregation.MEAN)
    for row in records(exact):
        if row["stratum"] != "RAN":
            assert row["estimate"] == 1
        elif row["op"] != "ENDW":  # an empty loop's jump back leads to itself
            assert row["estimate"] == 0


@pytest.mark.parametrize(("n", "balance", "says"), [(0, "natural", "n must be at least 1"), (9, "even", "balance")])
def test_bad_requests_are_refused(n: int, balance: str, says: str) -> None:
    with pytest.raises(ValueError, match=says):
        evaluate(Oracle(), TASK, n=n, seed=0, balance=balance)  # type: ignore[arg-type]


def test_the_macro_average_of_one_stratum_is_its_wilson_interval() -> None:
    tally = Tally()
    tally.add([{"op": "INC", "metric": Metric.EXACT_MATCH, "estimate": 0.75, "n": 4}])
    tally.add([{"op": "INC", "metric": Metric.EXACT_MATCH, "estimate": 1.0, "n": 6}])
    (row,) = tally.rows()
    assert (row["estimate"], row["n"]) == (0.9, 10)
    macro = macro_row([row])
    assert (macro["ci_low"], macro["ci_high"]) == pytest.approx(wilson_interval(9, 10))
    four = macro_row([row] * 4)  # four independent strata: half the width
    assert 0.9 - four["ci_low"] == pytest.approx((0.9 - macro["ci_low"]) / 2)
    with pytest.raises(ValueError, match="at least one"):
        macro_row([])


def test_partial_credit_counts_tokens_that_change() -> None:
    credit = PartialCredit(TASK)
    evaluate(Oracle(spoil=keep_the_cell), TASK, n=400, seed=3, observers=(credit,))
    rows = credit.rows()
    changed, every = str(Metric.CHANGED_TOKEN_ACCURACY), str(Metric.TOKEN_ACCURACY)
    assert value(rows, metric=changed, op="INC", stratum="RAN") == pytest.approx(2 / 3)
    assert value(rows, metric=every, op="INC", stratum="RAN") == pytest.approx(1 - 1 / SPEC.state_length)
    assert value(rows, metric=changed, op="DEC", stratum="RAN") == 1
    frozen = [row for row in rows if row["metric"] == changed and row.get("stratum") not in (None, "RAN")]
    assert not frozen  # nothing changes there, so there is no share
    strata = [row["estimate"] for row in rows if row["metric"] == changed and row.get("op")]
    assert value(rows, metric=changed, aggregation="macro") == pytest.approx(np.mean(strata))


def test_reliability_of_a_model_with_a_known_confidence() -> None:
    """Every token has probability q, so an answer q^length; 1 - share right is the error of INC alone."""
    confidence = 0.97
    q = confidence ** (1 / SPEC.state_length)
    sharpness = math.log(q * (len(SPEC.vocab) - 1) / (1 - q))
    model = Oracle(spoil=keep_the_cell, sharpness=sharpness)
    with Reliability(model, TASK) as reliability:
        scores = evaluate(model, TASK, n=300, seed=4, balance="natural", batch_size=100, observers=(reliability,))
    assert model.calls == 3  # it listens to the passes that were made
    assert not model._forward_hooks
    exact = select(scores, metric=Metric.EXACT_MATCH, aggregation=Aggregation.MEAN)
    share = float((exact["estimate"] * exact["n"]).to_numpy().sum() / 300)
    rows = reliability.rows()
    assert value(rows, metric=str(Metric.CONFIDENCE), stratum="0.95 to 0.99") == pytest.approx(confidence)
    assert value(rows, metric=str(Metric.RELIABILITY), stratum="0.95 to 0.99") == pytest.approx(share)
    assert value(rows, metric=str(Metric.CALIBRATION_ERROR)) == pytest.approx(abs(confidence - share))


def test_the_confidence_of_a_written_answer_is_the_product_of_its_tokens() -> None:
    task = TASKS["step"](as_world(SPEC))
    model = build_model(transformer_for("step", SPEC, n_layers=1, n_heads=2, d_model=16)).eval()
    batch = task.sample(3, seed=0)
    with torch.inference_mode():
        answer = task.answer(model, batch)
        with Reliability(model, task) as reliability:
            found = reliability.confidence(batch, answer)
        tokens = torch.cat([torch.from_numpy(encode(batch.examples).astype(np.int64)), answer], dim=1)
        shares = torch.softmax(model(tokens), dim=-1)
    length = SPEC.state_length
    for row in range(3):
        product = math.prod(float(shares[row, length - 1 + k, answer[row, k]]) for k in range(length))
        assert found[row] == pytest.approx(product, rel=1e-4)


def test_failures_are_counted_kept_and_told() -> None:
    failures = Failures(TASK, kept=2)
    evaluate(Oracle(spoil=keep_the_cell), TASK, n=300, seed=6, balance="natural", observers=(failures,), batch_size=50)
    scores = evaluate(Oracle(), TASK, n=300, seed=6, balance="natural")
    incremented = select(scores, op="INC", stratum="RAN", metric=Metric.EXACT_MATCH)
    assert failures.n_wrong == int(incremented["n"].iloc[0]) > 2
    assert len(failures.examples) == 2
    for failure in failures.examples:
        assert TASK.sample(1, seed=6, start=failure.row).examples.equal(failure.example).all()
        (slot,) = failure.slots
        place = SPEC.layout.position("cells", int(failure.example.array_ptr[0]))
        right = SPEC.vocab[int(step(failure.example).tokens()[0, place])]
        assert slot == SPEC.layout.names[place] and f"is {right} next" in failure.words()


def test_a_model_with_a_way_of_its_own_answers_in_it() -> None:
    class Stubborn(Oracle):
        """Its logits are the machine's; asked for an answer it gives the input back."""

        def answer(self, task: Task, batch: Batch) -> torch.Tensor:
            return batch.tokens

    copied = evaluate(Stubborn(), TASK, n=200, seed=1)
    assert copied.equals(evaluate(Oracle(spoil=give_the_input_back), TASK, n=200, seed=1))
