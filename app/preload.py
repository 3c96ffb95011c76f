"""What the pages import, imported before the server answers; the machine's modules only where the run needs them."""

import contextlib
from importlib import import_module

import interp
from app import attention_data, circuit_data, run_access, run_picker, session  # noqa: F401
from app.first_pages import STEP, first_page
from interp import RunError

with contextlib.suppress(RunError):  # the page says what is wrong
    first = first_page(interp.load(run_access.started_path()))
    import_module(first.module)
    if first is STEP:
        import_module("app.step_panels")
