"""Addition against Python's own `+`: digits, carries and cascades, under interventions too; and how sums are drawn."""

from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from interp.worlds.addition import NAMES, Addition
from interp.worlds.addition_digits import to_digits, to_numbers, written
from interp.worlds.addition_draws import draw_digits
from interp.worlds.base import in_split


@st.composite
def sums(draw, max_digits: int = 12) -> tuple[Addition, tuple[int, ...]]:
    base = draw(st.integers(2, 16))
    n_digits, n_operands = draw(st.integers(1, max_digits)), draw(st.integers(2, min(base, 4)))
    numbers = draw(st.tuples(*[st.integers(0, base**n_digits - 1)] * n_operands))
    return Addition(n_digits=n_digits, base=base, n_operands=n_operands), numbers


@settings(max_examples=200, deadline=None)
@given(sums())
def test_the_answer_is_pythons_sum(case: tuple[Addition, tuple[int, ...]]) -> None:
    world, numbers = case
    examples = world.examples([numbers])
    assert world.numbers(examples) == [numbers]
    (total,) = to_numbers(world.answer(examples).values, world.base)
    assert total == sum(numbers)
    carried = 0
    for place in range(world.n_digits):  # by hand: what Python's divmod carries
        values = [number // world.base**place % world.base for number in numbers]
        assert [world.read(examples, f"{name}[{place}]")[0] for name in NAMES[: len(numbers)]] == values
        assert world.read(examples, f"digit_sum[{place}]")[0] == sum(values)
        before = carried
        carried, digit = divmod(sum(values) + carried, world.base)
        assert world.read(examples, f"result_digit[{place}]")[0] == digit
        assert world.read(examples, f"carry_in[{place + 1}]")[0] == carried
        made = int(world.read(examples, f"generate[{place}]")[0])
        came_on = carried - made
        # a propagating place passes on exactly the carries that lift it over the base
        assert came_on == (before + world.read(examples, f"propagate[{place}]")[0] >= len(numbers))
        cascade = int(world.read(examples, f"cascade[{place + 1}]")[0])
        if not carried:
            assert cascade == 0
        elif place and came_on:
            assert cascade == 1 + world.read(examples, f"cascade[{place}]")[0]
        else:
            assert cascade == 1


@settings(max_examples=150, deadline=None)
@given(sums(6), st.data())
def test_do_in_both_models_against_a_loop_in_python(case, data) -> None:
    world, numbers = case
    name = data.draw(st.sampled_from([n for n, each in world.variables().items() if each.settable]))
    value = data.draw(st.integers(0, world.variable(name).n_values - 1))
    examples = world.examples([numbers])
    for carries in ("ripple", "look_ahead"):
        told = world.changed(carries=carries).answer(examples, do={name: np.array([value])})
        assert told.valid.all() and told.values[0].tolist() == by_hand(world, numbers, name, value, carries)


def by_hand(world: Addition, numbers: tuple[int, ...], name: str, value: int, carries: str) -> list[int]:
    """The digits of a sum in which one variable is set, one place after the other."""
    base, m, result = world.base, len(numbers), []
    seen, true = 0, 0  # the carry that the digit is written with, and the one that the places below make
    for i in range(world.n_digits):
        digits = [number // base**i % base for number in numbers]
        digits = [value if name == f"{NAMES[j]}[{i}]" else digit for j, digit in enumerate(digits)]
        total = value if name == f"digit_sum[{i}]" else sum(digits)
        result.append(value if name == f"result_digit[{i}]" else (total + seen) % base)
        made = value if name == f"generate[{i}]" else total // base
        near = value if name == f"propagate[{i}]" else max(0, total % base - (base - m))
        true = made + (true + near >= m)
        seen = true if carries == "look_ahead" else made + (seen + near >= m)
        seen = value if name == f"carry_in[{i + 1}]" else seen
    result.append(value if name == f"result_digit[{world.n_digits}]" else seen)
    return result


def test_the_two_models_disagree_only_where_a_set_carry_meets_a_place_that_propagates() -> None:
    ripple = Addition(n_digits=4)
    ahead, examples = ripple.changed(carries="look_ahead"), ripple.draw(600, seed=0, weights=ripple.strata_weights("c"))
    for i in range(1, 4):
        flipped = 1 - ripple.read(examples, f"carry_in[{i}]")
        one, other = (world.answer(examples, do={f"carry_in[{i}]": flipped}).values for world in (ripple, ahead))
        assert (one[:, : i + 1] == other[:, : i + 1]).all()
        differ = (one != other).any(axis=1)
        assert (differ == (ripple.read(examples, f"propagate[{i}]") == 1)).all() and differ.any()
    assert ripple.variable("carry_in[3]").parents == ("generate[2]", "propagate[2]", "carry_in[2]")
    assert "generate[0]" in ahead.variable("carry_in[3]").parents
    with pytest.raises(ValueError, match="can be read but not set"):
        ripple.answer(examples, do={"cascade[2]": np.zeros(600, dtype=np.int64)})


def test_every_pair_of_a_stratum_is_drawn_equally_often() -> None:
    """Against the list of all pairs, for lengths and cascades of a small world."""
    base, places, n = 3, 3, 4000
    everything = Addition(n_digits=places, base=base).examples([(a, b) for a in range(27) for b in range(27)])
    world = Addition(n_digits=places, base=base)
    longest, n_digits = world.longest_cascade(everything), (world.digits(everything) > 0)
    n_digits = np.maximum(1, (n_digits * np.arange(1, 4)).max(axis=2))
    for lengths, cascade in (((3, 3), 2), ((2, 3), 0), ((3, 1), 3), ((2, 2), 1), ((3, 3), 3)):
        wanted = (n_digits == lengths).all(axis=1) & (longest == cascade)
        random = np.random.default_rng(0).random((n, 2 * places))
        drawn, there = draw_digits(base, places, np.tile(lengths, (n, 1)), np.full(n, cascade), random)
        if not wanted.any():
            assert not there.any()
            continue
        found, counts = np.unique(drawn.reshape(n, -1), axis=0, return_counts=True)
        assert there.all() and {*map(tuple, found)} == {*map(tuple, everything.values[wanted])}
        expected = n / wanted.sum()
        assert np.abs(counts - expected).max() < 6 * np.sqrt(expected)


def test_draws_are_balanced_by_cascade_and_name_their_lengths() -> None:
    world = Addition(n_digits=20)
    strata = world.strata(world.draw(210, seed=1, weights=world.strata_weights("branches")))
    assert np.bincount(strata.number, minlength=21).max() < 30
    natural = world.strata(world.draw(300, seed=1))
    assert np.bincount(natural.number)[:4].sum() > 280, "random sums hardly cascade"
    one = Addition(n_digits=4)
    told = one.strata(one.examples([(9999, 1), (0, 0), (95, 5), (1234, 8766)]))
    assert told.part is not None
    assert [told.names[each] for each in told.number] == ["cascade 4", "no carry", "cascade 2", "cascade 4"]
    assert [told.parts[each] for each in told.part] == ["4 digits", "1 digit", "2 digits", "4 digits"]


def test_pairs_are_held_out_in_any_order_and_some_operands_altogether() -> None:
    world = Addition(n_digits=4)
    examples = world.draw(1000, seed=2, split="all")
    swapped = world.examples([(b, a) for a, b in world.numbers(examples)])
    assert (world.groups(examples) == world.groups(swapped)).all()
    longer = world.changed(n_digits=9)
    assert (longer.groups(longer.examples(world.numbers(examples))) == world.groups(examples)).all()
    unseen = {n for row, held in zip(world.numbers(examples), world.unseen(examples), strict=True) if held for n in row}
    for split in ("fit", "train", "validation"):
        assert not world.unseen(world.draw(500, seed=3, split=split)).any()
    held_out = world.draw(1000, seed=3)
    assert in_split(world.groups(held_out), "evaluation").all()
    assert 0.01 < world.unseen(held_out).mean() < 0.1 and unseen
    drawn = world.draw_where(lambda rows: world.unseen(rows) & in_split(world.groups(rows), "evaluation"), 8, seed=4)
    assert world.unseen(drawn).all()


def test_numbers_are_converted_exactly_at_the_edges() -> None:
    number = 16**40 - 1
    assert written(to_digits([number], 16, 40)[0]) == "F" * 40
    assert to_numbers(to_digits([number], 16, 40), 16) == [number]
    with pytest.raises(ValueError, match="1 to 2 digits in base 10, got 100"):
        to_digits([100], 10, 2)
    with pytest.raises(ValueError, match="base must be an integer from 2 to 16, got 17"):
        Addition(base=17)
    world = Addition(n_digits=4)
    assert world.text(world.examples([(1342, 879)])) == ["+1342+879+2221+"]
    assert world.text(world.examples([(101, 1002)]), reverse=True) == ["+101+2001+3011+"]
