"""Tokens come as arrays do: any integer type, byte order and strides; every architecture reads them alike."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import numpy as np
import pytest
import torch

from interp.runs import Run

ARRAYS: dict[str, Callable[[np.ndarray], Any]] = {
    **{f"int{bits}": lambda x, bits=bits: x.astype(f"int{bits}") for bits in (8, 16, 32)},
    "uint8": lambda x: x.astype(np.uint8),
    "uint64": lambda x: x.astype(np.uint64),
    "big_endian": lambda x: x.astype(">i4"),
    "negative_strides": lambda x: np.ascontiguousarray(x[:, ::-1])[:, ::-1],
    "columns_first": np.asfortranarray,
    "read_only": lambda x: np.frombuffer(x.tobytes(), dtype=x.dtype).reshape(x.shape),
    "lists": lambda x: x.tolist(),
    "tuples": lambda x: tuple(map(tuple, x.tolist())),
    "tensor_of_bytes": lambda x: torch.from_numpy(x.astype(np.uint8)),
    "tensor_of_shorts": lambda x: torch.from_numpy(x.astype(np.int16)),
    "tensor_with_strides": lambda x: torch.from_numpy(np.repeat(x, 2, axis=1))[:, ::2],
}
REFUSED: dict[str, Any] = {
    "floats": np.ones((1, 4)),
    "booleans": np.ones((1, 4), dtype=bool),
    "objects": np.array([[1, None]], dtype=object),
    "text_of_bytes": np.array([b"a"]),
    "three_axes": np.ones((1, 1, 4), dtype=np.int64),
    "no_axis": np.array(3),
    "unequal_rows": [[1, 2], [3]],
}


@pytest.mark.parametrize("form", ARRAYS)
def test_every_form_gives_the_same_logits(case: Any, form: str) -> None:
    with torch.no_grad():
        assert torch.equal(case.model(ARRAYS[form](case.tokens.numpy())), case.model(case.tokens))


@pytest.mark.parametrize("form", REFUSED)
def test_what_holds_no_tokens_is_refused(case: Any, form: str) -> None:
    with pytest.raises(ValueError, match="integers|one length"):
        case.model(REFUSED[form])


def test_an_option_of_another_architecture_is_named(case: Any) -> None:
    hands_on = "unexpected keyword argument 'no_such_option'"  # where a model hands its options on to another
    says = f"no option of the architecture {case.model.cfg.architecture}, which takes|{hands_on}"
    with pytest.raises(TypeError, match=says):
        case.model(case.tokens, no_such_option=1)


@pytest.mark.parametrize("form", ARRAYS)
def test_a_run_reads_states_in_every_form(tiny_run: Run, form: str) -> None:
    tokens = tiny_run.task.sample(8, seed=0, split="evaluation").tokens.numpy()
    assert np.array_equal(tiny_run.predict(ARRAYS[form](tokens)), tiny_run.predict(tokens))
