"""One selection, shared by all pages and kept in the address.

Views read it with `current()` and change it with `emit()`; nothing else passes between pages. The address holds it
too, so that a link shows another person the same thing: it is read once, when a visit begins, and written after
every change.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import asdict, dataclass, replace

import streamlit as st

from app.numbers import quoted, whole_number

KINDS = ("", "head", "node", "edge", "probe", "position")  # what `id` names; "" = nothing picked
_KEY = "selection"
_EXTRA = "address_extra"  # what else the address holds: which example, or where the Step page's program starts
_EDITS = "address_edits"  # the recipe of the Intervene page, as JSON
_WEIGHTS = "address_weights"  # the step of the training whose weights are looked at, where it is not the last
_RUN = "address_run"  # and the run, where it is another than the one that the app was started with
_COMPARED = ("against", "question", "variable")  # of the Compare page: another run, what is asked, of what
_NOTICES, _SHOWN, _HELD = "notices", "notices_shown", "notices_held"


@dataclass(frozen=True)
class Selection:
    """What the person looks at."""

    kind: str = ""  # one of KINDS
    id: str = ""  # a head "1.3", a circuit node or edge, a probe cell "variable|site|position"
    op: str = ""  # a stratum of the world (an opcode), "" = that of what is in view
    step: int = 0  # where the time slider stands, from 0


def parse(parameters: Mapping[str, str], ops: tuple[str, ...]) -> tuple[Selection, list[str]]:
    """The selection that an address spells, and a sentence for each part of it that could not be used."""
    notices = []
    kind, id_ = parameters.get("kind", ""), parameters.get("id", "")
    if kind not in KINDS or bool(kind) != bool(id_):
        notices.append(
            f"The link picks kind={quoted(kind)}, id={quoted(id_)}; nothing like that exists, so nothing is picked."
        )
        kind = id_ = ""
    asked = parameters.get("op", "")
    op = {each.casefold(): each for each in ops}.get(asked.casefold(), "")
    if asked and not op:
        notices.append(f"The link asks for op={quoted(asked)}; there are {', '.join(ops) or 'none'}.")
    text = parameters.get("step", "1")
    step = whole_number(text)
    if not step:
        notices.append(
            f"The link asks for step={quoted(text)}; a whole number from 1 was expected, so step 1 is shown."
        )
    return Selection(kind, id_, op, (step or 1) - 1), notices


def spell(selection: Selection) -> dict[str, str]:
    """The address parameters of a selection; parts that hold nothing are left out. Inverse of `parse`."""
    words = asdict(selection) | {"step": str(selection.step + 1)}
    return {name: value for name, value in words.items() if value}


def begin(ops: tuple[str, ...]) -> None:
    """Read the address when a visit begins; call at the top of every run of the script."""
    if _KEY in st.session_state:
        return
    chosen, notices = parse(st.query_params.to_dict(), ops)
    st.session_state[_KEY] = chosen
    st.session_state[_EDITS] = st.query_params.get("edits", "")
    for notice in notices:
        notify(notice)


def current() -> Selection:
    """The selection as it stands."""
    return st.session_state.get(_KEY, Selection())


def emit(
    *, kind: str | None = None, id: str | None = None, op: str | None = None, step: int | None = None
) -> Selection:
    """Change the parts that are named, keep the rest, and write the address."""
    changes = {
        name: value for name, value in (("kind", kind), ("id", id), ("op", op), ("step", step)) if value is not None
    }
    st.session_state[_KEY] = replace(current(), **changes)
    publish()
    return current()


def drop(notice: str) -> None:
    """Pick nothing, because what was picked is not there, and say so."""
    emit(kind="", id="")
    notify(notice)


def set_run(name: str | None) -> None:
    """The run that `publish` shall name in the address; None: the one that the app was started with."""
    st.session_state[_RUN] = name


def start_over(name: str | None) -> None:
    """Another run: what was picked in the last one is gone, its stratum stays."""
    st.session_state[_KEY] = Selection(op=current().op)
    st.session_state[_EXTRA], st.session_state[_EDITS] = {}, ""
    st.session_state[_WEIGHTS] = ""
    set_run(name)
    publish()


def set_extra(parameters: Mapping[str, str]) -> None:
    """What else the address shall hold beside the selection."""
    st.session_state[_EXTRA] = dict(parameters)
    publish()


def edits() -> str:
    """The recipe of the Intervene page as the address holds it; "" for none."""
    return st.session_state.get(_EDITS, "")


def set_edits(text: str) -> None:
    """What recipe the address shall hold."""
    st.session_state[_EDITS] = text
    publish()


def weights() -> str:
    """The step of the training whose weights are looked at, as the address holds it; "" for the last."""
    if _WEIGHTS not in st.session_state:
        st.session_state[_WEIGHTS] = st.query_params.get("weights", "")
    return st.session_state[_WEIGHTS]


def set_weights(step: str) -> None:
    """Look at the weights of another step, "" for the last; what was picked stays."""
    st.session_state[_WEIGHTS] = step
    publish()


def compared(part: str) -> str:
    """What the Compare page shows: `against` (the address of a run), `question` or `variable`; "" for the first."""
    key = f"address_{part}"
    if key not in st.session_state:
        st.session_state[key] = st.query_params.get(part, "")
    return st.session_state[key]


def set_compared(**parts: str) -> None:
    """Change what the Compare page shows."""
    for part, text in parts.items():
        st.session_state[f"address_{part}"] = text
    publish()


def publish() -> None:
    """Write selection and extras to the address where they differ from it."""
    kept = {"run": st.session_state.get(_RUN), "edits": edits(), "weights": weights()}
    kept |= {part: compared(part) for part in _COMPARED}
    wanted = st.session_state.get(_EXTRA, {}) | {name: text for name, text in kept.items() if text} | spell(current())
    if st.query_params.to_dict() != wanted:
        st.query_params.from_dict(wanted)


def notify(sentence: str) -> None:
    """Show a sentence at the top of the page on this run, or the next if the top is drawn already."""
    st.session_state.setdefault(_NOTICES, []).append(sentence)


def hold_notices() -> None:
    """Keep what is shown for one run more, which nobody asked for: something has loaded meanwhile."""
    st.session_state[_HELD] = True


def show_notices() -> None:
    """Draw the waiting notices; once, unless the page is drawn again without anybody having done anything."""
    held = st.session_state.get(_SHOWN, []) if st.session_state.pop(_HELD, False) else []
    st.session_state[_SHOWN] = list(dict.fromkeys([*held, *st.session_state.pop(_NOTICES, [])]))
    for sentence in st.session_state[_SHOWN]:
        st.info(sentence, icon=":material/info:")
