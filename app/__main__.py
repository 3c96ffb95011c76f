"""Serve the app: `python -m app [Streamlit options]`, with the run in TAPELENS_RUN; `tapelens app RUN` does this.

The page's modules are imported before the server answers, so that the first visit waits for none of them.
"""

import sys
from pathlib import Path

from streamlit import logger
from streamlit.web import cli

logger.get_logger("streamlit.runtime.caching.cache_data_api").setLevel("ERROR")  # there is no runtime yet: as it should
from app import attention_data, circuit_data, results_view, session, step_panels  # noqa: E402, F401


def main() -> None:
    cli.main(["run", str(Path(__file__).with_name("main.py")), *sys.argv[1:]], prog_name="streamlit")


if __name__ == "__main__":
    main()
