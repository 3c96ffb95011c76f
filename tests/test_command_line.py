"""Every verb: help for each option, a refusal before the work where nothing can be written, and quiet endings."""

from __future__ import annotations

import os
import re
import shutil
import socket
import subprocess
import sys
from pathlib import Path

import pytest
import tyro

from interp.cli import CLOSED_PIPE, COMMANDS, INTERRUPTED, main
from interp.cli.browsing import free_port
from interp.files import require_file, require_folder
from interp.runs import Run

SWEEP = Path(__file__).parents[1] / "examples" / "sweep_tiny.toml"
MAIN = [sys.executable, "-c", "from interp.cli import main; main()"]


def fails(capsys: pytest.CaptureFixture[str], arguments: list[str]) -> str:
    """The one line that a verb ends with; nothing else was shown, so nothing was begun."""
    with pytest.raises(SystemExit) as stopped:
        main(arguments)
    shown = capsys.readouterr()
    assert stopped.value.code == 1 and shown.out == "" and shown.err.count("\n") == 1, shown
    return shown.err


@pytest.mark.parametrize("verb", COMMANDS)
def test_every_option_of_every_verb_has_help(verb: str) -> None:
    parser = tyro.extras.get_parser(COMMANDS[verb])
    silent = []
    for option in parser._actions:
        words = re.sub(r"\((default|required|repeatable)\b.*", "", option.help or "", flags=re.DOTALL)
        if len(words.strip()) < 3:
            silent.append("/".join(option.option_strings) or option.dest)
    assert not silent


# What each verb is asked for, with PLACE for where it would write, or RUN for a run whose files it would write
INTO_PLACE = {
    "demo": [["demo", "--no-app", "--out", "PLACE"]],
    "sample": [["sample", "PLACE"], ["sample", "PLACE/x", "--format", "original"]],
    "evolve": [["evolve", "--out", "PLACE/x.npz"]],
    "train": [["train", "--out", "PLACE"]],
    "sweep": [["sweep", str(SWEEP), "--out", "PLACE"]],
    "eval": [["eval", "RUN", "--json", "PLACE/rows.json"]],
    "model-page": [["model-page", "RUN", "--out", "PLACE"]],
    "probing-page": [["probing-page", "RUN", "--out", "PLACE"]],
    "states-page": [["states-page", "RUN", "--out", "PLACE"]],
    "circuit-page": [["circuit-page", "RUN", "--out", "PLACE"]],
    "strings-page": [["strings-page", "RUN", "--out", "PLACE"]],
    "text-page": [["text-page", "--out", "PLACE"]],
    "sums-page": [["sums-page", "RUN", "--out", "PLACE"]],
    "sums-lengths": [["sums-lengths", "RUN", "--out", "PLACE"]],
    "sums-tables": [["sums-tables", "--out", "PLACE"]],
    "slots-page": [["slots-page", "RUN", "--out", "PLACE"]],
    "slots-restarts": [["slots-restarts", "--out", "PLACE"]],
    "compile": [["compile", "--out", "PLACE"]],
    "calibrate": [["calibrate", "--quick", "--out", "PLACE"]],
    "curves": [["curves", "RUN", "--out", "PLACE/curves.svg"]],
    "compare": [["compare", "RUN", "--out", "PLACE/compare.md"]],
    "lengths": [["lengths", "--out", "PLACE"]],
}
INTO_RUN = {
    "eval": [(["eval", "RUN", "--save"], "metrics.parquet")],
    "card": [(["card", "RUN"], "card.json"), (["card", "RUN"], "card.md")],
    "probe": [
        (["probe", "RUN"], "probes.parquet"),
        (["probe", "RUN"], "probe_errors.parquet"),
        (["probe", "RUN"], "probes.safetensors"),
        (["probe", "RUN", "--along"], "steps/"),
    ],
    "patch": [(["patch", "RUN"], "interventions.parquet")],
    "sources": [(["sources", "RUN"], "sources.parquet")],
    "sample-text": [(["sample-text", "RUN", "--save"], "texts.parquet")],
    "thinking": [(["thinking", "RUN"], "thinking.parquet")],
    "chains": [(["chains", "RUN"], "chains.parquet")],
    "diffusion": [(["diffusion", "RUN"], "diffusion.parquet")],
    "sums": [(["sums", "RUN"], "sums.parquet")],
    "slots": [(["slots", "RUN"], "slots.parquet")],
    "slots-inside": [(["slots-inside", "RUN"], "slots_inside.parquet")],
    "circuit": [(["circuit", "RUN"], name) for name in ("circuits.parquet", "attention.safetensors", "circuits/")],
    "report": [(["report", "RUN"], "report.html")],
    "train": [(["train", "--out", "RUN"], name) for name in ("resume/", "metrics.parquet", "model.safetensors")],
    "demo": [(["demo", "--no-app", "--out", "RUN"], name) for name in ("probes.parquet", "report.html", "circuits/")],
}
WRITE_NOTHING = {"app", "bench", "push", "generate", "chat"}  # chat saves where nothing is yet, see test_chat.py


def test_every_verb_that_writes_is_tried() -> None:
    assert {*INTO_PLACE, *INTO_RUN, *WRITE_NOTHING} == set(COMMANDS)


@pytest.fixture(params=["below a file", "a closed folder"])
def place(request: pytest.FixtureRequest, tmp_path: Path) -> str:
    """Where nothing can be written."""
    if request.param == "below a file":
        (tmp_path / "file").write_text("")
        return str(tmp_path / "file" / "runs")
    if os.geteuid():
        (tmp_path / "closed").mkdir(mode=0o555)
        return str(tmp_path / "closed" / "runs")
    if not Path("/proc/self").exists():
        pytest.skip("every folder is open to root, and this system has no /proc")
    return "/proc/runs"


@pytest.mark.parametrize("arguments", [each for cases in INTO_PLACE.values() for each in cases], ids=" ".join)
def test_a_place_that_takes_no_files_is_refused_before_the_work(
    arguments: list[str], place: str, tiny_run: Run, capsys: pytest.CaptureFixture[str]
) -> None:
    asked = [word.replace("PLACE", place).replace("RUN", str(tiny_run.path)) for word in arguments]
    assert re.match(
        r"tapelens: cannot write (into )?/.*: /.* (is not a folder|takes no new files)", fails(capsys, asked)
    )
    assert not Path(place).exists()


@pytest.mark.parametrize(
    ("arguments", "name"),
    [each for cases in INTO_RUN.values() for each in cases],
    ids=lambda value: value if isinstance(value, str) else value[0],
)
def test_a_file_that_cannot_be_replaced_is_refused_before_the_work(
    arguments: list[str], name: str, tiny_run: Run, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    run = Path(shutil.copytree(tiny_run.path, tmp_path / "run"))
    target = run / name.rstrip("/")
    if target.is_dir():
        shutil.rmtree(target)
    target.unlink(missing_ok=True)
    if name.endswith("/"):
        target.write_text("")
    else:
        target.mkdir()
    line = fails(capsys, [str(run) if word == "RUN" else word for word in arguments])
    assert "cannot write" in line and str(target) in line


def test_a_place_is_tried_without_leaving_anything(tmp_path: Path) -> None:
    require_folder(tmp_path / "a" / "b")
    require_file(tmp_path / "a" / "c.svg")
    require_file(Path("c.svg"))
    assert not list(tmp_path.iterdir())
    (tmp_path / "nowhere").symlink_to(tmp_path / "gone")
    with pytest.raises(OSError, match="nowhere is not a folder"):
        require_folder(tmp_path / "nowhere" / "x")


@pytest.mark.parametrize("verb", ["app", "demo"])
@pytest.mark.parametrize("port", ["-1", "65536", "99999", "9" * 30])
def test_a_port_out_of_range_is_one_line(
    verb: str, port: str, tiny_run: Run, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    where = [str(tiny_run.path)] if verb == "app" else ["--out", str(tmp_path / "new")]
    assert f"--port must be from 0 to 65535, got {port}" in fails(capsys, [verb, *where, f"--port={port}"])
    assert not list(tmp_path.iterdir())


def test_a_port_in_use_is_one_line(tiny_run: Run, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    with socket.socket() as other:
        other.bind(("127.0.0.1", 0))
        other.listen()
        port = other.getsockname()[1]
        for arguments in (["app", str(tiny_run.path)], ["demo", "--out", str(tmp_path / "new")]):
            line = fails(capsys, [*arguments, "--port", str(port)])
            assert f"cannot serve on port {port} (address already in use); choose another with --port" in line
    assert free_port(port) == port and free_port(0) > 0


@pytest.mark.parametrize("arguments", [["--help"], ["eval", "--help"], ["eval", "RUN", "--n", "12", "--programs", "0"]])
def test_a_reader_that_has_gone_ends_it_quietly(arguments: list[str], tiny_run: Run) -> None:
    """`tapelens … | head -1`, with the pipe closed before the first line."""
    reading, writing = os.pipe()
    os.close(reading)
    asked = [str(tiny_run.path) if word == "RUN" else word for word in arguments]
    done = subprocess.run([*MAIN, *asked], stdout=writing, stderr=subprocess.PIPE, text=True)
    os.close(writing)
    assert done.returncode == CLOSED_PIPE
    assert "Traceback" not in done.stderr and "Exception" not in done.stderr and "tapelens:" not in done.stderr


@pytest.mark.parametrize("module", ["rich.console", "tyro", "cython_vm", "interp.cli.training"])
def test_ctrl_c_while_importing_is_one_line(module: str) -> None:
    """The interrupt comes at the moment when a module is looked for, which the command line needs to begin with."""
    script = (
        "import sys\n"
        "class Interrupt:\n"
        "    def find_spec(self, name, *rest):\n"
        f"        if name == {module!r}: raise KeyboardInterrupt\n"
        "sys.meta_path.insert(0, Interrupt())\n"
        "from interp.cli import main\n"
        "main(['sample', 'x'])\n"
    )
    done = subprocess.run([sys.executable, "-c", script], capture_output=True, text=True)
    assert (done.returncode, done.stdout, done.stderr) == (INTERRUPTED, "", "tapelens: interrupted\n")


@pytest.mark.parametrize("module", ["streamlit", "app.session"])
def test_ctrl_c_while_the_app_is_imported_is_one_line(module: str) -> None:
    script = (
        "import runpy, sys\n"
        "class Interrupt:\n"
        "    def find_spec(self, name, *rest):\n"
        f"        if name == {module!r}: raise KeyboardInterrupt\n"
        "sys.meta_path.insert(0, Interrupt())\n"
        f"runpy.run_path({str(Path(__file__).parents[1] / 'app' / '__main__.py')!r}, run_name='__main__')\n"
    )
    done = subprocess.run([sys.executable, "-c", script], capture_output=True, text=True)
    assert (done.returncode, done.stdout, done.stderr) == (INTERRUPTED, "", "tapelens: interrupted\n")
