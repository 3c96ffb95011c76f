"""Sharing a run: pushed to a hub on this machine and opened from it, and everything that has to be refused."""

from __future__ import annotations

import json
import logging
import os
import shutil
import subprocess
import sys
from collections.abc import Callable, Iterator
from pathlib import Path

import hub_server
import pytest
import torch
import yaml
from hub_server import TOKEN, Hub

import interp
from interp.cli import main
from interp.files import write_json
from interp.reading import RunError
from interp.runs import Run
from interp.runs.hub_names import HubError, is_shared, parse_address, require_inside
from interp.sharing import plan_push, push
from interp.sharing.readme import licence

ROOT = Path(__file__).resolve().parents[1]
QUICKSTART = ROOT / "checkpoints" / "quickstart"


@pytest.fixture
def hub(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[Hub]:
    """A hub that we are logged in to, with nothing fetched from it yet."""
    from huggingface_hub import constants

    with hub_server.serving() as served:
        monkeypatch.setenv("HF_ENDPOINT", served.url)
        monkeypatch.setenv("HF_TOKEN", TOKEN)
        monkeypatch.setattr(constants, "ENDPOINT", served.url)  # read at its import, which may be long past
        monkeypatch.setattr(
            constants, "HUGGINGFACE_CO_URL_TEMPLATE", served.url + "/{repo_id}/resolve/{revision}/{filename}"
        )
        monkeypatch.setattr(constants, "HF_HOME", str(tmp_path / "hub"))
        monkeypatch.setattr(constants, "DOWNLOAD_CHUNK_SIZE", 1024)  # what a line that breaks may lose
        monkeypatch.setattr("time.sleep", lambda seconds: None)  # the client waits before it tries again
        yield served


@pytest.fixture
def mine(tiny_run: Run, tmp_path: Path) -> Run:
    """A run of one's own, with things in its folder that are nobody's business."""
    folder = Path(shutil.copytree(tiny_run.path, tmp_path / "mine"))
    (folder / "report.html").write_text("<script>alert(1)</script>")
    (folder / "notes.txt").write_text("private")
    (folder / "circuits").mkdir()
    write_json(folder / "circuits" / "INC.json", {"op": "INC"})
    (folder / "circuits" / "draft.py").write_text("print()")
    (folder / "resume").mkdir(exist_ok=True)
    (folder / "resume" / "state.safetensors").write_bytes(b"x")
    return interp.load(folder)


def files_of(run: Run) -> dict[str, bytes]:
    """A run as a repository holds it."""
    return {name: (run.path / name).read_bytes() for name in ("config.json", "model.safetensors", "metrics.parquet")}


def line(capsys: pytest.CaptureFixture[str], arguments: list[str]) -> str:
    """The one line that a verb ends with."""
    with pytest.raises(SystemExit) as stopped:
        main(arguments)
    err = capsys.readouterr().err
    assert stopped.value.code == 1 and err.startswith("tapelens: ") and err.count("\n") == 1, err
    return err


# There and back


def test_a_run_goes_to_a_hub_and_comes_back_the_same(hub: Hub, mine: Run, caplog: pytest.LogCaptureFixture) -> None:
    address = push(plan_push(mine, "me/mine"))
    repository = hub.repositories["me/mine"]
    assert repository.private and address == f"hf://me/mine@{repository.main}"
    held = set(repository.commits[repository.main])
    assert held == {".gitattributes", "README.md", "config.json", "model.safetensors", "metrics.parquet",
                    "circuits/INC.json"}  # fmt: skip

    with caplog.at_level(logging.WARNING, logger="interp.runs.hub_download"):
        back = interp.load("hf://me/mine")
    assert "4 files" in caplog.text and "kB" in caplog.text  # the size is said first
    assert (back.name, back.source, back.config) == ("mine", address, mine.config)
    assert not back.path.is_relative_to(mine.path)
    for name, tensor in mine.model.state_dict().items():
        assert torch.equal(tensor, back.model.state_dict()[name])
    assert back.frame("metrics").equals(mine.frame("metrics"))
    kept = {path.relative_to(back.path).as_posix() for path in back.path.rglob("*") if path.is_file()}
    assert kept == {"config.json", "model.safetensors", "metrics.parquet", "circuits/INC.json", "hub.json"}
    assert not [path for path in back.path.rglob("*") if path.is_symlink()]


def test_a_commit_means_the_same_for_ever_and_is_kept(hub: Hub, mine: Run) -> None:
    first = push(plan_push(mine, "me/mine"))
    (mine.path / "circuits" / "INC.json").unlink()
    write_json(mine.path / "circuits" / "DEC.json", {"op": "DEC"})
    second = push(plan_push(mine, "me/mine"))
    assert first != second
    old, new = interp.load(first), interp.load("hf://me/mine@main")
    assert new.source == second and [p.name for p in (new.path / "circuits").iterdir()] == ["DEC.json"]
    assert [p.name for p in (old.path / "circuits").iterdir()] == ["INC.json"]
    hub.requests.clear()
    assert interp.load(Path(first)).path == old.path  # a Path, as a command line makes it of the address
    assert hub.requests == []  # nobody was asked


def test_the_card_is_the_readme_with_metadata(hub: Hub) -> None:
    run = interp.load(QUICKSTART)
    text = plan_push(run, "me/quickstart").readme
    head, _, body = text.removeprefix("---\n").partition("\n---\n")
    values = yaml.safe_load(head)
    assert (values["library_name"], values["license"]) == ("tapelens", "mit")
    assert 'license = "MIT"' in (ROOT / "pyproject.toml").read_text()
    assert {"tapelens", "mechanistic-interpretability", "machine", "step-inplace", "transformer"} == set(values["tags"])
    (result,) = values["model-index"][0]["results"]
    card = json.loads((QUICKSTART / "card.json").read_text())
    macro = next(r for r in card["rows"] if (r["metric"], r.get("aggregation")) == ("exact_match", "macro"))
    assert result["metrics"][0]["value"] == macro["estimate"] and result["task"]["name"] == "step_inplace"
    said = (QUICKSTART / "card.md").read_text()
    assert said.partition("\n\n")[2].strip() in body and 'interp.load("hf://me/quickstart")' in body
    assert "report.html" not in str([file.name for file in plan_push(run, "me/quickstart").files])


def test_a_run_without_a_card_says_that_nothing_was_measured(mine: Run) -> None:
    text = plan_push(mine, "me/mine").readme
    assert "Nothing was measured" in text and "model-index" not in text and licence() == "mit"


def test_a_task_may_tell_a_person_something_first(
    hub: Hub, mine: Run, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    assert plan_push(mine, "me/mine").notice is None
    monkeypatch.setattr(type(mine.task), "notice_before_sharing", lambda self: "its words are those of a diary.")
    main(["push", str(mine.path), "me/mine"])
    told = capsys.readouterr().out
    assert told.index("kB in 5 files") < told.index("diary") < told.index("pushing to") < told.index("hf://me/mine@")
    assert "stays here: circuits/, notes.txt, report.html" in told and "private" in told


def test_a_dry_run_asks_nobody(hub: Hub, mine: Run, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delenv("HF_TOKEN")
    main(["push", str(mine.path), "me/mine", "--dry-run"])
    assert hub.requests == [] and hub.repositories == {}


def test_public_is_what_was_asked_for_and_never_otherwise(hub: Hub, mine: Run) -> None:
    push(plan_push(mine, "me/seen"), public=True)
    assert not hub.repositories["me/seen"].private
    with pytest.raises(HubError, match="me/seen is public there"):
        push(plan_push(mine, "me/seen"))
    push(plan_push(mine, "me/hidden"))
    with pytest.raises(HubError, match="me/hidden is private there"):
        push(plan_push(mine, "me/hidden"), public=True)
    assert [len(each.commits) for each in hub.repositories.values()] == [2, 2]


# Lines that break


def test_a_line_that_breaks_is_taken_up_in_the_middle(hub: Hub, mine: Run) -> None:
    hub.add("me/mine", files_of(mine))
    hub.breaks["model.safetensors"] = 1
    assert torch.equal(*(each.model.state_dict()["embed.W_E"] for each in (interp.load("hf://me/mine"), mine)))
    ranges = [asked for method, path, asked in hub.requests if method == "GET" and path.endswith("model.safetensors")]
    assert len(ranges) == 2 and ranges[0] == "" and int(ranges[1].removeprefix("bytes=").rstrip("-")) > 9000


def test_a_broken_transfer_leaves_no_run_and_the_next_call_goes_on(hub: Hub, mine: Run, tmp_path: Path) -> None:
    commit = hub.add("me/mine", files_of(mine))
    hub.breaks["model.safetensors"] = 1
    hub.down.add("model.safetensors")
    with pytest.raises(HubError, match=rf"model.safetensors of hf://me/mine@{commit} did not arrive: .* answered 500"):
        interp.load("hf://me/mine")
    assert not list((tmp_path / "hub" / "tapelens").rglob("hub.json"))
    hub.down.clear()
    hub.requests.clear()
    assert interp.load("hf://me/mine").source == f"hf://me/mine@{commit}"
    assert "config.json" not in hub.fetched() and "model.safetensors" in hub.fetched()  # what is whole stays


def test_a_damaged_file_is_named_and_not_kept(hub: Hub, mine: Run) -> None:
    hub.add("me/mine", files_of(mine))
    for name in ("model.safetensors", "metrics.parquet"):
        hub.damaged = {name}
        with pytest.raises(HubError, match=f"{name} of hf://me/mine@.* is damaged: what arrived is not what"):
            interp.load("hf://me/mine")
    hub.damaged = set()
    assert interp.load("hf://me/mine").step == mine.step


def test_a_push_that_breaks_changes_nothing_and_can_be_made_again(hub: Hub, mine: Run) -> None:
    push(plan_push(mine, "me/mine"))
    before = dict(hub.repositories["me/mine"].commits)
    (mine.path / "circuits" / "INC.json").write_text('{"op": "INC", "n": 2}')
    hub.drops_commits = True
    with pytest.raises(HubError, match="mine was not pushed to me/mine: .* cannot be reached, or the line broke"):
        push(plan_push(mine, "me/mine"))
    assert hub.repositories["me/mine"].commits == before
    hub.drops_commits = False
    address = push(plan_push(mine, "me/mine"))
    assert (interp.load(address).path / "circuits" / "INC.json").read_text() == '{"op": "INC", "n": 2}'


# What is refused


@pytest.mark.parametrize(
    ("change", "reason"),
    [
        (lambda files: files.pop("config.json"), "is no run of TapeLens: it holds no config.json"),
        (
            lambda files: files.update({"pytorch_model.bin": files.pop("model.safetensors")}),
            "holds no model.safetensors .it has 'pytorch_model.bin', and nothing is ever unpickled",
        ),
        (lambda files: files.update({"config.json": b'{"model_type": "gpt2"}'}), "is no run that this version reads"),
        (lambda files: files.update({"config.json": b"{" * 3000}), "is no run that this version reads: config.json"),
        (lambda files: files.update({"config.json": b" " * 1_100_000}), "config.json is larger than 1.00 MB"),
        (lambda files: files.update({"model.safetensors": b"\x80\x04x" * 9}), "model.safetensors is a pickle"),
        (lambda files: files.update({"model.safetensors": b"x" * 90}), "model.safetensors is not a whole safetensors"),
        (
            lambda files: files.update({"../../outside.json": b"{}"}),
            "names a file '../../outside.json', which does not",
        ),
        (lambda files: files.update({"circuits/..\\x.json": b"{}"}), "which does not stay in its folder"),
        (lambda files: files.update({"/etc/x.parquet": b"{}"}), "names a file '/etc/x.parquet'"),
    ],
)
def test_foreign_and_broken_repositories_are_refused_by_name_and_reason(
    change: Callable[[dict[str, bytes]], None], reason: str, hub: Hub, mine: Run, tmp_path: Path
) -> None:
    files = files_of(mine)
    change(files)
    commit = hub.add("them/theirs", files)
    with pytest.raises(HubError, match=reason) as error:
        interp.load("hf://them/theirs")
    assert f"hf://them/theirs@{commit}" in str(error.value) and "\n" not in str(error.value)
    assert not {"pytorch_model.bin", "../../outside.json"} & {*hub.fetched()}
    assert not list(tmp_path.rglob("hub.json")) and not list(tmp_path.rglob("outside.json"))
    if "config" in reason or "this version" in reason:
        assert "model.safetensors" not in hub.fetched() or "pickle" in reason or "whole" in reason


def test_what_runs_code_or_is_drawn_by_a_browser_is_never_fetched(hub: Hub, mine: Run) -> None:
    extra = ("report.html", "evil.pkl", "model.bin", "run.py", "notes.md", "README.md", ".hidden.json",
             "circuits/x.html", "resume/state.safetensors", "steps/evil/x.parquet")  # fmt: skip
    hub.add("them/theirs", files_of(mine) | dict.fromkeys(extra, b"x"))
    run = interp.load("hf://them/theirs")
    assert {*hub.fetched()} == {"config.json", "model.safetensors", "metrics.parquet"}
    assert not (run.path / "report.html").exists()


def test_more_than_a_gigabyte_is_refused_before_anything_is_fetched(
    hub: Hub, mine: Run, capsys: pytest.CaptureFixture[str]
) -> None:
    hub.add("me/mine", files_of(mine))
    hub.listed["metrics.parquet"] = {"size": 1_200_000_000}
    with pytest.raises(HubError, match=r"hf://me/mine@.* is 1.20 GB, more than 1 GB; allow it with --max-gb"):
        interp.load("hf://me/mine")
    assert hub.fetched() == []
    assert "more than 1e-06 GB" in line(capsys, ["push", str(mine.path), "me/mine", "--max-gb", "0.000001"])
    assert "--max-gb must be positive" in line(capsys, ["push", str(mine.path), "me/mine", "--max-gb", "0"])


@pytest.mark.parametrize(
    "address",
    ["hf://", "hf://me", "hf://me/", "hf://../x", "hf://me/..", "hf://me/a/b", "hf://me/x@", "hf://me/x@../y", "hf:/x",
     "hf://me/x@a..b", "hf://-me/x", "hf://me/x\n", "hf://me/x y", "hf:///me/x", "hf://me/x.git", "hf://me/a--b"],
)  # fmt: skip
def test_an_address_that_is_none_is_refused_and_nobody_is_asked(address: str, hub: Hub) -> None:
    with pytest.raises(HubError, match="expected "):
        interp.load(address)
    assert hub.requests == []


def test_the_names_that_are_shared() -> None:
    for name in ("config.json", "card.md", "model.safetensors", "steps/500.safetensors", "steps/500/probes.parquet",
                 "circuits/INC.json", "circuits/carry into 1.json", "circuits/along/500.json"):  # fmt: skip
        assert is_shared(name) and require_inside(name, "me/mine") == name
    for name in ("hub.json", "compiled.py", "circuits/../x.json", "steps/../x.safetensors", "a/b.parquet", ".x.parquet",
                 "circuits/.x.json", "report.html", "circuits\\x.json", "config.json\n",
                 "steps/007.safetensors"):  # fmt: skip
        assert not is_shared(name)
    assert str(parse_address("hf://me/mine@refs/pr/1")) == "hf://me/mine@refs/pr/1"


def test_every_mistake_is_one_line(
    hub: Hub, mine: Run, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    def pushed(repository: str = "me/mine", run: Path = mine.path) -> str:
        return line(capsys, ["push", str(run), repository])

    assert "expected OWNER/NAME" in pushed("mine") and "expected OWNER/NAME" in pushed("me/../x")
    assert "no run at" in pushed(run=tmp_path / "nowhere")
    assert "says that your token may not do this (403)" in pushed("them/mine")
    hub.add("me/other", {"pytorch_model.bin": b"x", "config.json": b"{}"})
    assert "me/other holds something else than a run (pytorch_model.bin)" in pushed("me/other")
    for name in ("nobody/nothing", "me/other@none"):
        asked = line(capsys, ["eval", f"hf://{name}"])
        assert "no such repository" in asked or "no such revision" in asked
    monkeypatch.setenv("HF_ENDPOINT", "http://127.0.0.1:9")  # where nobody answers
    assert "http://127.0.0.1:9 cannot be reached" in pushed()
    monkeypatch.setenv("HF_ENDPOINT", hub.url)
    (mine.path / "circuits" / "INC.json").write_text("{")
    assert "circuits/INC.json is not" in pushed()
    (mine.path / "circuits" / "INC.json").unlink()
    (mine.path / "circuits" / "x.json").symlink_to(tmp_path / "secret.json")
    (tmp_path / "secret.json").write_text('{"secret": 1}')
    assert "x.json is a link that leaves the run's folder" in pushed()
    (mine.path / "circuits" / "x.json").unlink()
    weights = (mine.path / "model.safetensors").read_bytes()
    (mine.path / "model.safetensors").write_bytes(weights[:-9])
    assert "model.safetensors is not a whole safetensors file" in pushed()
    monkeypatch.delenv("HF_TOKEN")
    assert "no token for the hub: log in" in pushed()
    assert [*hub.repositories] == ["me/other"]  # nothing was made on the way


def test_offline_is_said(hub: Hub, monkeypatch: pytest.MonkeyPatch) -> None:
    from huggingface_hub import constants

    monkeypatch.setattr(constants, "HF_HUB_OFFLINE", True)
    with pytest.raises(HubError, match="hf://me/mine cannot be opened: offline, because HF_HUB_OFFLINE is set"):
        interp.load("hf://me/mine")


def test_a_private_repository_is_not_there_for_others(hub: Hub, mine: Run, monkeypatch: pytest.MonkeyPatch) -> None:
    push(plan_push(mine, "me/mine"))
    monkeypatch.setenv("HF_TOKEN", "hf_somebody_else")
    with pytest.raises(HubError, match="no such repository at .*, or it is private and your token may not see it"):
        interp.load("hf://me/mine")


# Unless asked


def test_no_network_is_touched_unless_asked(mine: Run, monkeypatch: pytest.MonkeyPatch) -> None:
    """A run on the disk is opened, read and planned for a push without a connection."""

    def refuse(*args: object, **kwargs: object) -> None:
        raise AssertionError("the network was touched")

    for name in ("create_connection", "getaddrinfo", "socket.connect"):
        monkeypatch.setattr(f"socket.{name}", refuse)
    run = interp.load(mine.path)
    assert run.source is None and len(run.frame("metrics")) and run.model is not None
    assert plan_push(run, "me/mine").size > 0


def test_a_run_on_the_disk_needs_no_client_of_a_hub(mine: Run) -> None:
    script = (
        f"import interp, sys; run = interp.load({str(mine.path)!r}); run.frame('metrics'); assert run.source is None\n"
        "assert not {'huggingface_hub', 'torch'} & {*sys.modules}"
    )
    env = {**os.environ, "PYTHONPATH": str(ROOT)}
    done = subprocess.run([sys.executable, "-c", script], capture_output=True, text=True, env=env)
    assert done.returncode == 0, done.stderr


def test_a_push_by_the_command_and_what_opens_it_are_two_processes(hub: Hub, mine: Run, tmp_path: Path) -> None:
    """As a person does it: nothing is set up but the environment; the client's own questions are answered too."""
    env = {**os.environ, "PYTHONPATH": str(ROOT), "HF_HOME": str(tmp_path / "elsewhere"), "OMP_NUM_THREADS": "1"}
    command = [sys.executable, "-m", "interp", "push", str(mine.path), "me/mine"]
    done = subprocess.run(command, capture_output=True, text=True, env=env, cwd=tmp_path)
    assert done.returncode == 0, done.stderr
    address = done.stdout.strip().splitlines()[-1].removeprefix("pushed: ")
    script = f"import interp; print(interp.load({address!r}).source)"
    opened = subprocess.run([sys.executable, "-c", script], capture_output=True, text=True, env=env, cwd=tmp_path)
    assert opened.stdout.strip() == address and "fetching hf://me/mine@" in opened.stderr, opened.stderr
    assert (tmp_path / "elsewhere" / "tapelens" / "me").is_dir()


def test_the_apps_address_opens_nothing_from_a_hub(hub: Hub, monkeypatch: pytest.MonkeyPatch) -> None:
    from app.run_access import linked_path

    for name in ("hf://me/mine", "hf:/me/mine@main", "HF://me/mine", " hf://me/mine"):
        with pytest.raises(RunError, match="a link opens no run of a hub; fetch it with tapelens app hf://OWNER/NAME"):
            linked_path(name)
    assert hub.requests == []
