"""Commands that messages show and runs record: each can be pasted, whatever the paths in it hold."""

from __future__ import annotations

import ast
import html
import json
import re
import shlex
import shutil
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest
from tiny import tiny_config

import interp
from app import attention_data, circuit_data, edge_examples
from app.probe_errors import errors_of
from app.run_access import require_current, split_command
from cython_vm import Records
from interp.cli import main
from interp.cli.verbs import COMMANDS, parse
from interp.commands import called_with, command, find_command, this_command
from interp.pages.cards import read_card
from interp.reading import RunError
from interp.report import write_report
from interp.results import rows_frame, write_frame
from interp.runs import FRAMES, Run, frame_command
from interp.runs.probe_errors import read_errors
from interp.training import train

ROOT = Path(__file__).parents[1]
QUICKSTART = ROOT / "checkpoints" / "quickstart"
NAMES = ["my runs", "it's", 'a "b" c', "x; rm y", "a,b", "$HOME", "[red]x", "tapelens probe z", "café", "a:b (1)", "*"]


@pytest.fixture(params=NAMES)
def folder(request: pytest.FixtureRequest, tmp_path: Path) -> Path:
    """A run with every file, in a folder whose name a shell would take apart."""
    return Path(shutil.copytree(QUICKSTART, tmp_path / request.param / "run", symlinks=True))


def pasted(line: str) -> list[str]:
    """The words that a shell makes of a command, after checking that the verb takes them."""
    words = shlex.split(line)
    assert words[0] == "tapelens" and words[1] in COMMANDS
    parse(words[1:])  # binds the arguments, runs nothing
    return words


def every_problem(folder: Path) -> Iterator[tuple[str, Callable[[], object]]]:
    """(a file to damage or remove, what then complains with a command): all places that show one."""
    run = interp.load(folder)
    for kind in FRAMES:
        yield f"{kind}.parquet", lambda kind=kind: interp.load(folder).frame(kind)
    yield "model.safetensors", lambda: interp.load(folder).step
    yield "probe_errors.parquet", lambda: read_errors(run)
    yield "circuits/INC.json", lambda: circuit_data.read(run, "INC")
    yield "circuits/edges/INC.json", lambda: edge_examples.read(run, "INC")
    yield "attention.safetensors", lambda: attention_data.mean_of_op(run, "INC")
    yield "probe_errors.parquet", lambda: errors_of(run, "op|blocks.0.hook_resid_post|array_ptr[0]", "logistic")


def test_every_problem_of_a_run_names_a_command_that_can_be_pasted(folder: Path) -> None:
    for name, read in every_problem(folder):
        data = (folder / name).read_bytes()
        (folder / name).unlink()
        with pytest.raises(RunError) as missing:
            read()
        (folder / name).write_bytes(data[: len(data) // 2])
        with pytest.raises(RunError) as broken:
            read()
        (folder / name).write_bytes(data)
        for error in (missing, broken):
            sentence, line = split_command(str(error.value))
            assert str(folder) in pasted(line), line
            assert sentence.endswith(".") and line not in sentence


def test_a_missing_run_and_a_missing_card_and_missing_records_name_their_commands(folder: Path) -> None:
    shutil.rmtree(folder)
    with pytest.raises(RunError) as error:
        interp.load(folder)
    assert pasted(find_command(str(error.value))[1]) == ["tapelens", "train", "--out", str(folder)]
    with pytest.raises(RunError) as error:
        read_card(folder)
    assert pasted(find_command(str(error.value))[1]) == ["tapelens", "card", str(folder)]
    with pytest.raises(FileNotFoundError) as gone:
        Records(folder)
    assert pasted(find_command(str(gone.value))[1]) == ["tapelens", "sample", str(folder)]


def test_what_was_measured_on_other_weights_or_another_config_names_its_command(folder: Path) -> None:
    run = interp.load(folder)
    for kind in FRAMES:
        write_frame(rows_frame([]), folder / f"{kind}.parquet", provenance={"digest": "another"})
        with pytest.raises(RunError) as error:
            run.frame(kind)
        assert str(folder) in pasted(find_command(str(error.value))[1])
    for found in ({"digest": "another"}, {"digest": run.config.digest, "step": run.step + 1}):
        with pytest.raises(RunError) as error:
            require_current(run, folder / "x", found, frame_command("circuits", folder))
        assert pasted(find_command(str(error.value))[1])[:3] == ["tapelens", "circuit", str(folder)]


def test_a_report_shows_commands_that_can_be_pasted(folder: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    for path in folder.iterdir():
        if path.name != "config.json":
            shutil.rmtree(path) if path.is_dir() else path.unlink()
    monkeypatch.chdir(folder.parents[1])
    page = write_report(interp.load(folder)).read_text()
    shown = [html.unescape(text) for text in re.findall(r"<code>(tapelens .*?)</code>", page)]
    asked = [line for line in shown if "/run" in line]
    assert {pasted(line)[1] for line in asked} >= {"train", "probe", "patch", "circuit"}
    assert all(f"{folder.parent.name}/run" in pasted(line) for line in asked)


@pytest.mark.parametrize("name", NAMES)
def test_a_run_records_the_command_that_makes_it(name: str, tmp_path: Path) -> None:
    out = tmp_path / name
    arguments = ["compile", "--out", str(out), "--n-circuit-pairs", "0", "--spec.n-instructions", "4"]
    arguments += ["--spec.n-cells", "3", "--spec.n-input", "1", "--spec.n-output", "1", "--spec.bits", "1"]
    main(arguments)
    recorded = json.loads((out / "config.json").read_text())["command"]
    assert pasted(recorded) == ["tapelens", *arguments]


def test_train_and_demo_record_theirs(tmp_path: Path) -> None:
    out = tmp_path / "my run"
    arguments = ["train", "--out", str(out), "--steps", "2", "--batch-size", "4", "--training.eval-states", "60"]
    main(arguments)
    assert pasted(json.loads((out / "config.json").read_text())["command"]) == ["tapelens", *arguments]
    line = command("demo", "--preset", "quickstart", "--out", out)
    train(tiny_config(steps=2), tmp_path / "demo", command=line)
    assert pasted(json.loads((tmp_path / "demo" / "config.json").read_text())["command"])[-1] == str(out)


def test_the_command_that_runs_is_what_main_was_called_with() -> None:
    called_with(["probe", "my run"])
    assert this_command() == "tapelens probe 'my run'"


@pytest.mark.parametrize("name", NAMES)
def test_a_sentence_on_the_screen_keeps_a_path_as_it_is(
    name: str, tiny_run: Run, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    out = tmp_path / ("long " * 20) / name / "curves.svg"
    main(["curves", str(tiny_run.path), "--out", str(out)])
    assert capsys.readouterr().out == f"1 learning curves in {out}\n"


def test_the_last_of_several_commands_counts() -> None:
    line = command("probe", "x; tapelens probe z")
    message = f"/a/x; tapelens probe z/f.parquet does not exist yet; make it with: {line}"
    assert split_command(message) == ("/a/x; tapelens probe z/f.parquet does not exist yet.", line)
    assert find_command("nothing mends it; see: README.md") == ("nothing mends it; see: README.md", "")


def string_parts(tree: ast.AST) -> Iterator[tuple[int, str]]:
    """Every f-string, with its values as {}, and the line it begins on."""
    for node in ast.walk(tree):
        if isinstance(node, ast.JoinedStr):
            yield node.lineno, "".join(str(v.value) if isinstance(v, ast.Constant) else "{}" for v in node.values)


def test_no_command_is_put_together_by_hand() -> None:
    """A value inside "tapelens VERB …" must have gone through `command`; prose in backticks holds no paths."""
    by_hand, joined = [], []
    for package in ("interp", "app", "cython_vm"):
        for file in sorted((ROOT / package).rglob("*.py")):
            source = file.read_text(encoding="utf-8")
            tree = ast.parse(source)
            verbs = "|".join(COMMANDS)
            by_hand += [
                f"{file.name}:{line}: {text}"
                for line, text in string_parts(tree)
                if re.search(rf"(?<!`)tapelens (?:\{{\}} \{{\}}|(?:{verbs})\b[^;`]*?(?<![;,`] )\{{\}})", text)
            ]
            joined += [file.name for found in re.findall(r"join\(.*sys\.argv", source) if found]
    assert not by_hand and not joined
