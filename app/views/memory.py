"""Memory: a slot machine's memory step by step, the world's beside the model's, and a content set by hand."""

from __future__ import annotations

import numpy as np
import streamlit as st

from app import examples_view, memory_data, run_access, session, widgets
from app.components.clickable import clickable
from app.components.memory_table import Slot, memory_table
from app.example_controls import draw_neighbours, load
from app.examples_view import ExamplesView, Shown
from app.memory_data import Memories, Setting
from app.run_access import LoadedModel

SLOT, SET = "memory_slot", "memory_set"


def fields(shown: Shown, row: np.ndarray, at: int) -> tuple[str, ...]:
    """Kind, pointers and content of a slot in words; a pointer of a slot that does nothing with it is left out."""
    world = shown.task.world
    n, names = world.spec.n_slots, world.program.names
    kind = world.value_name(f"kind[{at}]", int(row[at]))
    pointers = [int(row[k * n + at]) for k in (1, 2, 3)]
    told = ["" if kind in ("DATA", "HALT", "FREE") and to == 0 else f"→ {to} {names[to]}" for to in pointers]
    return kind, *told, str(int(row[4 * n + at]))


def slots(shown: Shown, found: Memories, step: int) -> list[Slot]:
    """The memory at a step of the slider."""
    n = shown.task.world.spec.n_slots
    before = found.true[max(0, step - 1)]
    result = []
    for at in range(n):
        true, held = (fields(shown, rows[step], at) for rows in (found.true, found.model))
        was = fields(shown, before, at)
        result.append(
            Slot(
                shown.task.world.program.names[at], true, held, float(found.p[step, at]),
                tuple(a != b for a, b in zip(true, was, strict=True)),
                counter=int(found.true[step, 5 * n]) == at, model_counter=int(found.model[step, 5 * n]) == at,
            )
        )  # fmt: skip
    return result


def sentence(shown: Shown, found: Memories, step: int) -> str:
    """How the model's memory stands to the world's here, and how the run ends."""
    n = shown.task.world.spec.n_slots
    wrong = int((found.true[step, : 5 * n].reshape(5, n) != found.model[step, : 5 * n].reshape(5, n)).any(axis=0).sum())
    here = "✓ The model's memory is the machine's, slot for slot." if not wrong else (
        f"✗ {wrong} of the model's {n} slots hold something else than the machine's."
    )  # fmt: skip
    end = "right" if found.answer == found.truth else f"wrong: it is {spelled(found.truth)}"
    return f"{here} Its answer in the end, {spelled(found.answer)}, is {end}."


def spelled(answer: tuple[int, ...]) -> str:
    """An answer's contents, in the order of their slots."""
    return "**" + " ".join(map(str, answer)) + "**"


def draw_setting(view: ExamplesView, shown: Shown, loaded: LoadedModel, found: Memories, step: int) -> None:
    """Set a content before this step, and see where the run ends."""
    world = shown.task.world
    names = [f"{at} {name}" for at, name in enumerate(world.program.names)]
    picked = min(st.session_state.get(SLOT, 0), len(names) - 1)
    st.markdown("**Set a content** before this step; machine and model go on from there")
    with (
        st.form("set_content", border=False),
        st.container(horizontal=True, vertical_alignment="bottom", gap="small"),
    ):
        slot = st.selectbox("Slot", range(len(names)), index=picked, format_func=names.__getitem__, width=180)
        value = st.number_input("Content", 0, world.spec.n_values - 1, 0, width=130)
        asked = st.form_submit_button("Set it", icon=":material/edit:", type="primary")
    if asked:
        st.session_state[SET] = (view.number, Setting(step, int(slot), int(value)))
    number, setting = st.session_state.get(SET, (-1, None))
    if setting is None or number != view.number:
        return
    after = memory_data.changed(loaded, loaded.key, view.number, setting)
    what = f"With **{world.program.names[setting.slot]}** set to {setting.value} before step {setting.step + 1}"
    if not after.truth:
        st.markdown(f"{what} the machine never halts, so there is no answer to hold the model's against.")
    else:
        same = "✓ as" if after.model == after.truth else "✗ not as"
        moved = "moves" if after.truth != found.truth else "does not move"
        st.markdown(
            f"{what} the machine's answer is {spelled(after.truth)} (it {moved}: without it {spelled(found.truth)}). "
            f"The model answers {spelled(after.model)}, {same} the machine."
        )
    if st.button("Undo", icon=":material/undo:", key="undo_set"):
        st.session_state.pop(SET)
        st.rerun()


def page() -> None:
    view = examples_view.view(run_access.current())
    top = st.empty()
    where = f"{session.describe_model(view.run)} · held-out example {view.number + 1}"
    top.markdown(f"#### {where}")
    shown, loaded, problem = load(view)
    if shown is None:
        return
    if problem is not None:
        run_access.show_problem(problem)
        return
    if loaded is None:
        run_access.model_or_wait(view.run)
        return
    found = memory_data.memories(loaded, loaded.key, view.number)
    n = len(found.true)
    step = min(view.step, n - 1)
    world = shown.task.world
    at = int(found.true[step, 5 * world.spec.n_slots])
    op = world.value_name(f"kind[{at}]", int(found.true[step, at]))
    top.markdown(f"#### {where} · step {step + 1} of {n} · next **{op}**")
    st.caption(
        f"{world.in_words()[0].upper()}{world.in_words()[1:]}: {world.describe(shown.batch.examples)}. Each slot holds "
        "a kind, three pointers and a content; an instruction is a slot whose kind is its operator and whose pointers "
        "are its two arguments and its destination. The input was kept out of training."
    )
    with st.container(horizontal=True, vertical_alignment="bottom", gap="small"):
        draw_neighbours(view)
    widgets.time_slider("step", n)
    with st.container(border=True):
        st.markdown(sentence(shown, found, step))
    draw_setting(view, shown, loaded, found, step)
    st.caption(
        "▶ is executed next; underlined is what the last step wrote; ✗ what the model holds instead; p how sure it is "
        "of the slot. Pick a slot to set its content."
    )
    picked = st.session_state.get(SLOT)
    clickable(
        memory_table(slots(shown, found, step), picked=picked), key="memory",
        on_pick=lambda value: st.session_state.__setitem__(SLOT, int(value)),
    )  # fmt: skip


page()
