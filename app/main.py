"""The app's entry: `streamlit run app/main.py [-- RUN]`, or `tapelens app RUN`."""

import sys
from pathlib import Path

import streamlit as st

ROOT = Path(__file__).resolve().parents[1]
if "app" not in sys.modules and sys.path[1:2] != [str(ROOT)]:
    # Streamlit puts app/ on the path, not the folder above it, which must come before an app.py where a person is
    sys.path.insert(1, str(ROOT))

from app import refused, run_access, run_picker, selection, session  # noqa: E402
from app.first_pages import pages_of  # noqa: E402
from app.pages import PAGES  # noqa: E402
from interp import RunError  # noqa: E402

# Not in a folder named pages/: Streamlit would run its files by themselves when a link opens one on a fresh server.
st.set_page_config(page_title="TapeLens", page_icon="🔎", layout="wide")
st.html(
    "<style>"
    # Streamlit's own white on the light blue of the dark theme, and its faded captions, are too faint to read (WCAG AA)
    "button[kind^='primary'] {color: light-dark(#FFFFFF, #10161D) !important}"
    "[data-tag], [data-tag] span, [data-tag] button {color: light-dark(#FFFFFF, #10161D) !important}"
    "[data-testid='stCode'] .token {color: light-dark(#1F2933, #E8EDF2) !important}"
    "[data-testid='stCaptionContainer'], [data-testid='stCaptionContainer'] p"
    " {color: light-dark(#4A5563, #AAB5C1) !important; opacity: 1}"
    # a popover hangs outside the page, whose colour scheme it does not know
    "[data-testid='stPopoverBody'] [data-testid='stCaptionContainer'],"
    " [data-testid='stPopoverBody'] [data-testid='stCaptionContainer'] p {color: inherit !important}"
    "</style>"
)
pages = {
    name: each for name, each in PAGES.items() if name not in ("examples", "sums", "text")
}  # until a run says what it opens with
view, problem = None, None
try:
    view = session.view()  # opens the run, reads the address
    pages = pages_of(view.run)
except Exception as error:  # said below, once there is a page to say it on
    problem = error
first = next(iter(pages))
paths = {name: each.url_path for name, each in pages.items()} | {first: "first"}
refusals = {} if view is None else {name: each.refuses(view.run) for name, each in pages.items()}
entries = {
    name: st.Page(
        each.file, title=each.title, icon=each.icon, url_path=paths[name], default=name == first,
        visibility="hidden" if refusals.get(name) else "visible",  # a link to it is answered with a sentence
    )
    for name, each in pages.items()
}  # fmt: skip
# The first page has the bare address; under its own name it is found too, by a link from where it was not the first.
opens = pages[first]
also = st.Page(opens.file, title=opens.title, icon=opens.icon, url_path=opens.url_path, visibility="hidden")
page = st.navigation([*entries.values(), also], position="top")
if page == also:
    st.switch_page(entries[first], query_params=st.query_params.to_dict())
name = next(name for name, entry in entries.items() if entry == page)
try:
    run_picker.draw(None if view is None else view.run)
    if problem is not None:
        raise problem
    assert view is not None
    refusal = refusals[name]
    if run_picker.just_chosen() and refusal:
        st.switch_page(entries[first])
    selection.publish()
    selection.show_notices()
    if refusal:
        session.show_status(view)
        refused.draw(refusal, view.run, entries, pages)
    else:
        page.run()
    st.divider()
    st.caption(session.describe_run(view.run))
    if left_out := [pages[each].title for each, sentence in refusals.items() if sentence]:
        st.caption(f"Pages that have nothing to show for this run are left out: {', '.join(left_out)}.")
except RunError as error:
    run_access.show_problem(error)
except Exception as error:  # the last resort: a sentence for the reader, the traceback for the server's log
    run_access.show_failure(error)
