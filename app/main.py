"""The app's entry: `streamlit run app/main.py [-- RUN]`, or `tapelens app RUN`."""

import sys
from pathlib import Path

import streamlit as st

ROOT = Path(__file__).resolve().parents[1]
if "app" not in sys.modules and sys.path[1:2] != [str(ROOT)]:
    # Streamlit puts app/ on the path, not the folder above it, which must come before an app.py where a person is
    sys.path.insert(1, str(ROOT))

from app import run_access, selection, session  # noqa: E402
from interp import RunError  # noqa: E402

# Not in a folder named pages/: Streamlit would run its files by themselves when a link opens one on a fresh server.
st.set_page_config(page_title="TapeLens", page_icon="🔎", layout="wide")
st.html(
    "<style>"
    # Streamlit's own white on the light blue of the dark theme, and its faded captions, are too faint to read (WCAG AA)
    "button[kind^='primary'] {color: light-dark(#FFFFFF, #10161D) !important}"
    "[data-testid='stCaptionContainer'], [data-testid='stCaptionContainer'] p"
    " {color: light-dark(#4A5563, #AAB5C1) !important; opacity: 1}"
    "</style>"
)
page = st.navigation(
    [
        st.Page("views/step.py", title="Step", icon=":material/footprint:", default=True),
        st.Page("views/attention.py", title="Attention", icon=":material/visibility:"),
        st.Page("views/probe_results.py", title="Probes", icon=":material/sensors:", url_path="probes"),
        st.Page("views/circuit.py", title="Circuit", icon=":material/account_tree:"),
    ],
    position="top",
)
try:
    view = session.view()  # opens the run, reads the address
    selection.publish()
    selection.show_notices()
    page.run()
    st.divider()
    st.caption(session.describe_run(view.run))
except RunError as error:
    run_access.show_problem(error)
except Exception as error:  # the last resort: a sentence for the reader, the traceback for the server's log
    run_access.show_failure(error)
