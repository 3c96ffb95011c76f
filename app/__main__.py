"""Serve the app: `python app/__main__.py [Streamlit options]`, with the run in TAPELENS_RUN; `tapelens app RUN` does
this.

The page's modules are imported before the server answers, so that the first visit waits for none of them.
"""

import sys
from pathlib import Path

ROOT = Path(__file__).resolve().parents[1]


def main() -> None:
    """Serve until Ctrl-C, which ends in one line also while the imports last."""
    here = Path.cwd()
    if here != ROOT:  # nothing of the folder that a person happens to be in is imported, whatever PYTHONPATH says
        sys.path[:] = [folder for folder in sys.path if Path(folder).resolve() != here]
    if str(ROOT) not in sys.path:  # a plain clone, run by its path
        sys.path.insert(0, str(ROOT))
    try:
        from streamlit import logger
        from streamlit.web import cli

        # There is no runtime yet: as it should
        logger.get_logger("streamlit.runtime.caching.cache_data_api").setLevel("ERROR")
        import app.preload  # noqa: F401

        cli.main(["run", str(Path(__file__).resolve().with_name("main.py")), *sys.argv[1:]], prog_name="streamlit")
    except KeyboardInterrupt:
        print("tapelens: interrupted", file=sys.stderr)
        sys.exit(130)


if __name__ == "__main__":
    main()
