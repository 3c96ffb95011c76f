"""docs/transformer_lens.md says what is so: what it lists is there, and what it says is missing is not."""

import re
from pathlib import Path

import pytest

from interp.models import TransformerConfig, build_model

PAGE = (Path(__file__).parents[2] / "docs" / "transformer_lens.md").read_text()
THERE, MISSING = PAGE.split("## What is not, and why")
NAME = re.compile(r"`model\.((?:cfg\.)?[A-Za-z_]+)")
CFG = TransformerConfig(d_vocab=7, n_ctx=5, n_layers=1, n_heads=2, d_model=8)


def has(owner: object, path: str) -> bool:
    for name in path.split("."):
        if not hasattr(owner, name):
            return False
        owner = getattr(owner, name)
    return True


def names(text: str) -> list[str]:
    rows = [line.split("|")[1] if line.startswith("|") else line for line in text.splitlines()]
    return [name for row in rows for name in NAME.findall(row)]


@pytest.mark.parametrize("name", sorted(set(names(THERE))))
def test_what_is_there(name):
    assert has(build_model(CFG), name)


@pytest.mark.parametrize("name", sorted(set(names(MISSING)) - {"cuda"}))  # across several devices, says the row
def test_what_is_not(name):
    assert not has(build_model(CFG), name)


def test_the_page_names_all_that_was_asked_for():
    listed = set(names(THERE))
    assert len(listed) > 60
    for name in vars(type(build_model(CFG))):
        if name.startswith("set_"):
            assert name in listed
