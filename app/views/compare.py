"""Compare: two runs side by side on one scale, and their difference, by variable and instruction."""

from __future__ import annotations

import math
from collections.abc import Collection

import pandas as pd
import streamlit as st

from app import compared, run_access, run_list, selection, session, widgets
from app.components.pairs import pairs
from app.numbers import quoted
from interp import Run, RunError
from interp.commands import command
from interp.runs import STREAM_TASKS
from interp.runs.further_frames import BEYOND, STATES
from interp.studies.comparing import QUESTIONS

EVERY = "all"
_VERBS = {"exact match": "eval", "read": "probe", "used": "patch", "circuit": "circuit"}
_OF_STREAMS = {"longer": BEYOND, "carried": STATES}  # asked of tasks that tell executed steps one after the other


def pick_other(run: Run) -> Run | None:
    """The run to hold this one against: what the address names, else the first of the same task, or at least of the
    same world; None where a person has to pick one."""
    here = run_access.whole_run().path.resolve()
    there = [each for each in run_list.listed()[0] if not run_access.is_at(each.address, here)]
    there.sort(key=lambda each: (each.task != run.config.task, each.world != run.config.world.name))
    if not there:
        st.info("There is no other run to compare this one with; train one, or start the app where some lie.")
        return None
    by_address = {each.address: each for each in there}
    asked = selection.compared("against")
    if asked and asked not in by_address:
        selection.notify(f"The link compares with {quoted(asked)}, which is none of the runs here.")
        asked = ""
        selection.set_compared(against="")
        st.rerun()
    now = asked or (there[0].address if there[0].world == run.config.world.name else "")

    def words(address: str) -> str:
        each = by_address[address]
        return f"{each.name} · {each.task} · {each.words}"

    widgets.selectbox(
        "Compare with", list(by_address), now or None, key="compare_against", format_func=words,
        on_pick=lambda address: selection.set_compared(against=address),
    )  # fmt: skip
    if not now:
        st.info(
            f"No other run of the world {run.config.world.name} is here. Pick one of another world to compare what "
            "bears the same name in both.",
            icon=":material/science:",
        )
        return None
    return run_access.opened(now)


def pick_rows(rows: pd.DataFrame) -> tuple[pd.DataFrame, str]:
    """The question, the variable and the instruction; what is left, and the question."""
    there = [question for question in QUESTIONS if question in set(rows["question"])]
    left, middle, right = st.columns(3)
    asked = selection.compared("question")
    question = asked if asked in there else there[0]
    with left:
        widgets.selectbox(
            "Question", there, question, key="compare_question",
            on_pick=lambda each: selection.set_compared(question=each),
        )  # fmt: skip
    of = rows.loc[rows["question"] == question]
    variable, by_variable = "", compared.about_variables(of)
    if by_variable:
        names = list(dict.fromkeys(of["item"]))
        variable = selection.compared("variable") if selection.compared("variable") in names else ""
        with middle:
            widgets.selectbox(
                "Variable", [EVERY, *names], variable or EVERY, key="compare_variable",
                on_pick=lambda each: selection.set_compared(variable="" if each == EVERY else each),
            )  # fmt: skip
    ops = list(dict.fromkeys(of["op"].dropna()))
    op = selection.current().op if selection.current().op in ops else ""
    if ops:
        with right:
            widgets.selectbox(
                "Instruction", [EVERY, *ops], op or EVERY, key="compare_op",
                on_pick=lambda each: selection.emit(op="" if each == EVERY else each),
            )  # fmt: skip
    return compared.filtered(rows, question=question, variable=variable, op=op), question


def to_measure(run: Run, asked: Collection[str]) -> list[str]:
    """The commands that would answer what has not been asked of a run."""
    lines = [
        command(verb, run.path, *(["--save"] if verb == "eval" else []))
        for question, verb in _VERBS.items()
        if question not in asked
    ]
    if run.config.task in STREAM_TASKS:
        lines += [frame.command(run) for question, frame in _OF_STREAMS.items() if question not in asked]
    return lines


def draw_chart(rows: pd.DataFrame, names: tuple[str, str], question: str) -> None:
    """The chart, and what it leaves out."""
    st.markdown(f"**{question.capitalize()}**: {QUESTIONS[question]}, from 0 to 1")
    enough = compared.drawn(rows)
    if len(enough) < len(rows):
        n = len(rows) - len(enough)
        st.caption(f"{n} numbers rest on fewer than {compared.ENOUGH} examples: they stand below, and are not drawn.")
    if enough.empty:
        return
    items = [str(item) for item in enough["item"]]
    values = enough["estimate_1"].tolist(), enough["estimate_2"].tolist()
    first, second = ([None if pd.isna(v) else float(v) for v in enough[f"control_{k}"]] for k in (1, 2))
    largest = enough.loc[enough["difference"].abs().idxmax()]
    told = f"largest difference {largest['difference']:+.2f} at {largest['item']}"
    st.echarts_chart(  # type: ignore[attr-defined]
        pairs(items, values, (first, second), names=names), key="compare_pairs", height=110 + 40 * len(items),
        alt=f"{question} of {names[0]} and {names[1]}, {len(items)} pairs of bars and their differences; {told}.",
    )  # fmt: skip


def written(value: float | None) -> str:
    """A number of the table; nothing where there is none."""
    return "" if value is None or math.isnan(value) else f"{value:.3f}"


def sentence(rows: pd.DataFrame, names: tuple[str, str]) -> str:
    """In how many of what was asked each is higher, and where they differ most."""
    differences = rows["difference"].tolist()
    higher = sum(each > 0 for each in differences), sum(each < 0 for each in differences)
    largest = rows.loc[rows["difference"].abs().idxmax()]
    if not any(higher):
        return f"**{names[0]}** and **{names[1]}** are alike in " + (
            "this number." if len(rows) == 1 else f"all {len(rows)} numbers."
        )
    told = f"{largest['estimate_1']:.3f} and {largest['estimate_2']:.3f} ({largest['difference']:+.3f})"
    if len(rows) == 1:
        return f"**{names[1 if higher[0] else 0]}** is higher at **{largest['item']}**: {told}."
    return (
        f"Of {len(rows)} numbers, **{names[1]}** is higher in {higher[0]} and **{names[0]}** in {higher[1]}. They "
        f"differ most at **{largest['item']}**: {told}."
    )


def draw_table(rows: pd.DataFrame, names: tuple[str, str]) -> None:
    """Every number with its interval, n, control and place; a column that says nothing of any row is left out."""
    shown: dict[str, list[str]] = {"": [str(item) for item in rows["item"]]}
    for side, name in ((1, names[0]), (2, names[1])):
        own = [rows[f"{column}_{side}"].tolist() for column in ("estimate", "low", "high", "n", "control", "place")]
        estimates, lows, highs, counts, controls, places = own
        shown[name] = [written(each) for each in estimates]
        shown[f"{name}: 95 %"] = [
            "" if pd.isna(low) else f"{written(low)} to {written(high)}" for low, high in zip(lows, highs, strict=True)
        ]
        shown[f"{name}: n"] = ["" if pd.isna(each) else f"{int(each):,}" for each in counts]
        shown[f"{name}: control"] = [written(each) for each in controls]
        shown[f"{name}: at"] = ["" if pd.isna(each) else str(each) for each in places]
    shown["difference"] = [
        f"{each:+.3f}".replace("-", "−") if abs(each) >= 5e-4 else "0" for each in rows["difference"]
    ]
    table = pd.DataFrame({name: values for name, values in shown.items() if any(values)})
    st.dataframe(table, hide_index=True, width="stretch")
    controls = sorted({name for side in (1, 2) for name in rows[f"control_name_{side}"] if name})
    if controls:
        st.caption(f"Control: {', '.join(name.replace('_', ' ') for name in controls)}; a mark on each bar.")


def page() -> None:
    view = session.view()
    session.show_status(view)
    st.markdown("#### Two runs side by side")
    run = run_access.whole_run()
    other = pick_other(run)
    if other is None:
        return
    if run.config.task != other.config.task:
        st.caption(
            f"{run.name} is about {run.config.task}, {other.name} about {other.config.task}: only what bears the same "
            "name in both is compared, and it may mean another thing."
        )
    rows, names = compared.together(run, other)
    missing = {each: compared.questions_of(each) for each in (run, other)}
    if rows.empty:
        st.info("Nothing was asked of both runs.", icon=":material/science:")
    else:
        left, question = pick_rows(rows)
        if left.empty:
            st.info("Nothing of that was measured on both.")
        else:
            st.markdown(sentence(left, names))
            draw_chart(left, names, question)
            draw_table(left, names)
            if question in ("read", "used"):
                st.caption(
                    "Each at the best of its places inside that model: the best of many is flattered by its choice."
                )
    lacking = [line for each, there in missing.items() for line in to_measure(each, there)]
    if lacking:
        with st.expander("Not measured on both"):
            for line in lacking:
                st.code(line, language="bash")


try:
    page()
except RunError as error:
    run_access.show_problem(error)
