"""Plain text as a world: read as a stream, cut into units that are held out whole, as characters or byte pairs."""

from __future__ import annotations

import json
import subprocess
import sys
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from interp.worlds import in_split, world_from_dict
from interp.worlds.text import DEFAULT, TextWorld, source, token_file
from interp.worlds.text.classes import CLASSES, character_class

ROOT = Path(__file__).resolve().parents[2]
WORDS = "alpha beta gamma delta 17 words, and so on. Été 日本 \U0001f600\n"


def write(folder: Path, text: str, name: str = "some.txt") -> Path:
    path = folder / name
    path.write_bytes(text.encode())
    return path


def varied(n: int, seed: int = 0) -> str:
    """n lines that differ, so that units have hashes of their own."""
    rng = np.random.default_rng(seed)
    return "".join(f"{number:x} {WORDS}" for number in rng.integers(1 << 40, size=n))


def test_units_are_the_text_and_its_windows_lie_inside_them(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """With reads of seven bytes, so that characters, blocks and separators are cut at every place."""
    monkeypatch.setattr(source, "_AT_ONCE", 7)
    text = varied(120)
    path = write(tmp_path, text)
    world = TextWorld.of(path, length=16, block=50)
    assert world.n_characters == len(text) and world.to_dict()["sha256"] == source.sha256(str(path))
    cut = list(source.units(str(path), "block", block=50, separator="\n"))
    assert "".join(cut) == text and {len(each) for each in cut[:-1]} == {50}
    for split in ("fit", "validation", "evaluation"):
        told = [each for each in cut if in_split(np.array([token_file.hash_text(each)], dtype=np.uint64), split)[0]]
        assert list(world.units_of(split)) == told
        rows = world.draw(40, seed=1, split=split)
        assert all(any(window in unit for unit in told) for window in world.texts(rows))
        covered = world.side_by_side(split)
        assert told[0].startswith(world.texts(covered[:1])[0])
        # every character but the first of a unit is asked for at least once
        reach = {int(place) + step for place in covered.places for step in range(1, 16)}
        starts = world.tokens.starts[:-1][in_split(world.tokens.hashes, split)]
        for start, unit in zip(starts.tolist(), told, strict=True):
            if len(unit) >= 16:
                assert {start + at for at in range(1, len(unit))} <= reach
    documents = list(source.units(str(path), "document", block=50, separator="\n"))
    assert documents == [line for line in text.split("\n") if line.strip()]


def test_documents_end_with_their_end_and_short_ones_are_filled_up(tmp_path: Path) -> None:
    text = "\n\n".join(f"document {number}" + "." * (number % 30) for number in range(300))
    world = TextWorld.of(write(tmp_path, text), length=24, unit="document")
    rows = world.draw(200, seed=0, split="fit")
    for window in rows.tokens:
        ends = np.flatnonzero(window == world.end)
        assert not len(ends) or (window[ends[0] :] == world.end).all()
    short = [row for row in rows.tokens if world.decode(row).startswith("document") and world.end in row]
    assert short and all(world.decode(row) in text for row in short)
    strata = world.strata(rows, np.tile(np.arange(23), (200, 1))).number
    ended = rows.tokens[:, :-1] == world.end
    assert (strata[ended] == -1).all() and (strata[~ended] >= 0).all()


def test_what_is_no_utf8_is_refused_with_the_offset_of_its_byte(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    for size in (5, 1 << 20):
        monkeypatch.setattr(source, "_AT_ONCE", size)
        path = tmp_path / "broken.txt"
        path.write_bytes("fünf Wörter".encode() + b"\xff" + b" more")
        with pytest.raises(ValueError, match=r"broken.txt is not UTF-8: the byte at offset 13 \(0xff\)"):
            TextWorld.of(path)
        path.write_bytes(b"abc \xe2\x82")  # a character that ends with the file
        with pytest.raises(ValueError, match=r"offset 4 \(0xe2\).*unexpected end"):
            TextWorld.of(path)
    path.write_bytes(b"")
    with pytest.raises(ValueError, match="holds no text"):
        TextWorld.of(path)
    with pytest.raises(FileNotFoundError):
        TextWorld.of(tmp_path / "nothing.txt")


def test_many_kinds_of_characters_make_byte_pairs_of_the_training_part(tmp_path: Path) -> None:
    kinds = "".join(chr(0x4E00 + number) for number in range(5000))
    text = varied(400) + kinds
    path = write(tmp_path, text)
    world = TextWorld.of(path, vocab_size=400, block=200)
    assert set(world.to_dict()["vocabulary"]) == {"byte_pairs"} and world.end == 400
    for sentence in ("alpha beta", "Été 日本 \U0001f600", " a\n\tb", "never seen: Ω", "<|endoftext|>"):
        ids = world.encode(sentence)
        assert world.decode(ids) == sentence and world.end not in ids
        assert int(world.characters[ids].sum()) == len(sentence)
    assert len(world.encode("alpha beta gamma")) < 8  # it learned them
    again: Any = world_from_dict({"name": "text", **json.loads(json.dumps(world.to_dict()))})
    assert again == world and (again.encode("gamma delta") == world.encode("gamma delta")).all()
    # what is held out teaches nothing: a word of a held-out block alone is no token
    marked = [
        "zqzqzqzqzq " * 18 + str(number) for number in range(400)
        if not in_split(np.array([token_file.hash_text("zqzqzqzqzq " * 18 + str(number))], dtype=np.uint64), "fit")[0]
    ]  # fmt: skip
    other = write(tmp_path, "\n\n".join([*text.splitlines(), *marked[:20]]), "other.txt")
    learned = TextWorld.of(other, vocab_size=400, unit="document", vocabulary="byte_pairs")
    assert not any("zqzq" in name for name in learned.vocabulary.names)
    with pytest.raises(ValueError, match="more than 4,096 kinds of characters"):
        TextWorld.of(path, vocabulary="characters")


def test_a_character_that_the_text_never_had_is_named(tmp_path: Path) -> None:
    world = TextWorld.of(write(tmp_path, varied(100)), length=8)
    with pytest.raises(ValueError, match="the character 'ß' is not in the text that was trained on"):
        world.encode("alpha ß")


def test_a_text_that_moved_is_the_same_run_and_one_that_changed_is_refused(tmp_path: Path) -> None:
    path = write(tmp_path, varied(100))
    world = TextWorld.of(path, length=8, block=40)
    moved = path.rename(tmp_path / "moved.txt")
    with pytest.raises(ValueError, match=r"some.txt of this run cannot be read \(No such file or directory\)"):
        world.draw(1, seed=0)
    elsewhere = TextWorld.from_dict({**world.to_dict(), "source": str(moved)})
    assert elsewhere.identity() == world.identity() and len(elsewhere.draw(3, seed=0)) == 3
    assert (TextWorld.of(moved, length=8, block=40).draw(3, seed=0).tokens == elsewhere.draw(3, seed=0).tokens).all()
    changed = TextWorld.from_dict({**elsewhere.to_dict(), "sha256": "0" * 64})
    with pytest.raises(ValueError, match=rf"has SHA-256 {world.sha256} here, and this run was made with 0{{64}}: the"):
        changed.draw(1, seed=0)
    assert changed.decode(changed.encode("alpha")) == "alpha"


def test_another_pythons_documentation_is_refused_with_both_hashes() -> None:
    here = TextWorld.of(length=32)
    other = TextWorld.from_dict({**here.to_dict(), "sha256": "f" * 64})
    with pytest.raises(ValueError, match=rf"{here.sha256} here, and this run was made with f{{64}} \(every Python"):
        other.draw(1, seed=0)
    assert here.source == DEFAULT and here.n_characters > 100_000


def test_settings_from_a_command_line_read_the_text_anew(tmp_path: Path) -> None:
    world = TextWorld.of(length=32)
    assert world.changed({"length": 40}).vocabulary.to_dict() == world.vocabulary.to_dict()
    pairs = world.changed({"vocabulary": "byte_pairs", "vocab_size": 300, "length": 20})
    assert pairs.end == 300 and pairs.length == 20 and pairs.sha256 == world.sha256
    other = world.from_source(write(tmp_path, varied(100)))
    assert other.sha256 != world.sha256 and other.length == 32 and other.n_characters == len(varied(100))
    pages = world.changed({"unit": "document", "separator": "\\f"})
    assert pages.unit == "document" and len(pages.tokens.hashes) > 50  # topics, each a document
    with pytest.raises(ValueError, match="sha256 follows from the text"):
        world.changed({"sha256": "0"})
    for name, value in (("unit", "word"), ("length", 1), ("block", 0), ("separator", ""), ("vocab_size", 5)):
        with pytest.raises(ValueError, match=f"^{name} must"):
            world.changed({name: value})


def test_variables_by_hand(tmp_path: Path) -> None:
    path = write(tmp_path, "ab C1\n., é" * 40)
    world = TextWorld.of(path, length=10, block=10)
    rows = world.side_by_side("all", 1)
    assert world.texts(rows) == ["ab C1\n., é"]
    at = np.arange(11)[None]
    assert [CLASSES[value] for value in world.read(rows, "class", at)[0, :10]] == [
        "lower", "lower", "space", "upper", "digit", "newline", "punctuation", "punctuation", "space", "lower",
    ]  # fmt: skip
    assert world.read(rows, "word_length", at)[0].tolist() == [1, 2, 0, 1, 2, 0, 0, 0, 0, 1, -1]
    assert world.read(rows, "column", at)[0].tolist() == [-1, -1, -1, -1, -1, 0, 1, 2, 3, 4, -1]
    assert CLASSES[character_class("日")] == "other" and world.value_name("class", 2) == "digit"


STREAMED = """
import sys
from pathlib import Path
import numpy as np
from interp.worlds.text import TextWorld
world = TextWorld.of(sys.argv[1], length=128, **eval(sys.argv[3]))
world.keep_beside(Path(sys.argv[2]))
for step in range(50):
    rows = world.draw(64, seed=0, start=64 * step, split="fit")
assert len(world.tokens) > 0 and world.tokens.tokens.dtype == np.uint16
status = dict(line.split(":", 1) for line in open("/proc/self/status"))  # of this process since it began
print(int(status["VmHWM"].split()[0]) // 1024, len(world.tokens))
"""


def peak(path: Path, beside: Path, **settings: object) -> tuple[int, int]:
    """Peak and tokens of a process of its own that draws from a text, in MB."""
    done = subprocess.run(
        [sys.executable, "-c", STREAMED, str(path), str(beside), repr(settings)],
        capture_output=True, text=True, check=True, cwd=ROOT,
    )  # fmt: skip
    megabytes, n = map(int, done.stdout.split())
    return megabytes, n


@pytest.mark.skipif(not Path("/proc/self/status").exists(), reason="this system does not tell a process's peak")
def test_a_long_text_is_never_held_in_memory(tmp_path: Path) -> None:
    """60 MB, of which the tokens alone would be 120: the peak is that of the libraries and a little more."""
    line = varied(2000)
    path = tmp_path / "long.txt"
    with path.open("wb") as file:
        for number in range(60_000_000 // len(line.encode())):
            file.write(f"{number}\n".encode() + line.encode())
    megabytes, n = peak(path, tmp_path)
    kept = list((tmp_path / ".texts").iterdir())
    assert n > 40_000_000 and {each.suffix for each in kept} == {".tokens", ".npz"}
    assert max(each.stat().st_size for each in kept) == 2 * n
    assert megabytes < 160, megabytes
    before = {each: each.stat().st_mtime_ns for each in kept}
    assert peak(path, tmp_path)[1] == n and before == {each: each.stat().st_mtime_ns for each in kept}


@pytest.mark.long  # writes 3 GB
@pytest.mark.skipif(not Path("/proc/self/status").exists(), reason="this system does not tell a process's peak")
@pytest.mark.parametrize("settings", [{}, {"vocabulary": "byte_pairs", "vocab_size": 1000}], ids=["characters", "bpe"])
def test_a_gigabyte_stays_below_500_megabytes(tmp_path: Path, settings: dict[str, object]) -> None:
    path = tmp_path / "gigabyte.txt"
    with path.open("wb") as file:
        number = 0
        while file.tell() < 1_000_000_000:
            file.write(varied(5000, seed=number).encode())
            number += 1
    megabytes, n = peak(path, tmp_path, **settings)
    assert n > 100_000_000 and megabytes < 500, megabytes
