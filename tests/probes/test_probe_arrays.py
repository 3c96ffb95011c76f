"""Arrays as they come: every byte order, layout and dtype gives the probe that plain arrays give."""

from collections.abc import Callable
from typing import Any

import numpy as np
import pytest
import torch
from probe_cases import fresh

from probes import PROBES, MajorityProbe

torch.set_num_threads(1)

NAMES = [*PROBES, "majority"]


def frozen(x: np.ndarray) -> np.ndarray:
    x = x.copy()
    x.flags.writeable = False
    return x


def unaligned(x: np.ndarray) -> np.ndarray:
    """x as a field of packed records: strides that are no multiple of the item's size."""
    packed = np.zeros(x.shape, dtype=np.dtype([("pad", "u1"), ("x", x.dtype)]))
    packed["x"] = x
    return packed["x"]


LAYOUTS: dict[str, Callable[[np.ndarray], np.ndarray]] = {
    "big_endian": lambda x: x.astype(x.dtype.newbyteorder(">")),
    "fortran": np.asfortranarray,
    "every_other_row": lambda x: np.repeat(x, 2, axis=0)[::2],
    "every_other_column": lambda x: np.repeat(x, 2, axis=-1)[..., ::2],
    "reversed_rows": lambda x: x[::-1].copy()[::-1],
    "reversed_columns": lambda x: x[..., ::-1].copy()[..., ::-1],
    "transposed": lambda x: x.T.copy().T,
    "read_only": frozen,
    "unaligned": unaligned,
    "list": lambda x: x.tolist(),
}


def make(name: str) -> Any:
    return MajorityProbe() if name == "majority" else fresh(name)


def twin(probe: Any) -> Any:
    return type(probe)(**probe.get_params())


def rows() -> tuple[np.ndarray, np.ndarray]:
    """Halves in [-3, 3], which float16 and integers (doubled) hold exactly; three classes."""
    rng = np.random.default_rng(0)
    y = rng.integers(0, 3, 240)
    return np.round(2 * (rng.normal(size=(3, 5))[y] + 0.4 * rng.normal(size=(240, 5)))).clip(-6, 6) / 2, y


@pytest.fixture(params=NAMES)
def probe(request) -> Any:
    return make(request.param)


@pytest.mark.parametrize("layout", LAYOUTS)
@pytest.mark.parametrize("dtype", [np.float32, np.float64])
def test_layouts_give_what_plain_arrays_give(probe, layout, dtype):
    x, y = rows()
    x = x.astype(dtype)
    plain = twin(probe).fit(x, y)
    wanted = plain.predict(x)
    other, labels, weights = LAYOUTS[layout](x), LAYOUTS[layout](y[:, None]), LAYOUTS[layout](np.ones(240)[:, None])
    labels, weights = (part if isinstance(part, list) else part[:, 0] for part in (labels, weights))
    labels, weights = ([v[0] for v in part] if isinstance(part, list) else part for part in (labels, weights))
    before = np.array(other)
    fitted = probe.fit(other, labels)
    assert np.array_equal(fitted.predict(other), wanted)
    assert fitted.score(other, labels, weights) == plain.score(x, y)
    assert np.array_equal(np.array(other), before)
    if hasattr(plain, "coef_"):
        np.testing.assert_allclose(fitted.coef_, plain.coef_, rtol=1e-4, atol=1e-5)


@pytest.mark.parametrize(
    "dtype",
    [np.float16, np.int8, np.uint8, np.int16, np.uint16, np.int32, np.uint32, np.int64, np.uint64, np.longdouble],
)
def test_dtypes_give_what_float64_gives(probe, dtype):
    x, y = rows()
    x = 2 * x + 6  # whole and not negative, so that every dtype holds them
    wanted = twin(probe).fit(x, y).predict(x)
    assert np.mean(probe.fit(x.astype(dtype), y).predict(x.astype(dtype)) == wanted) > 0.995


def test_booleans_are_zeros_and_ones(probe):
    x, y = rows()
    on = x > 0
    wanted = twin(probe).fit(on.astype(np.float32), y).predict(on.astype(np.float32))
    assert np.array_equal(probe.fit(on, y).predict(on), wanted)


@pytest.mark.parametrize(
    "dtype", [torch.float16, torch.bfloat16, torch.float32, torch.float64, torch.int64, torch.bool]
)
def test_tensors_give_what_arrays_give(probe, dtype):
    x, y = rows()
    tensor = torch.from_numpy(2 * x).to(dtype)
    array = tensor.to(torch.float64 if dtype in (torch.float64, torch.int64) else torch.float32).numpy()
    wanted = twin(probe).fit(array, y).predict(array)
    wide = tensor.repeat_interleave(2, 1)[:, ::2].T.contiguous().T  # strides of its own
    assert np.array_equal(probe.fit(wide, torch.from_numpy(y)).predict(wide), wanted)
    if dtype.is_floating_point:
        learned = tensor.clone().requires_grad_()
        assert np.array_equal(probe.fit(learned, torch.from_numpy(y)).predict(learned), wanted)


@pytest.mark.parametrize(
    "X",
    [
        np.full((240, 3), "a"),
        np.full((240, 3), 1.5, dtype=object),
        np.full((240, 3), None),
        np.ones((240, 3), complex),
        np.ones((240, 3), "datetime64[s]"),
        torch.ones(240, 3, dtype=torch.complex64),
        torch.ones(240, 3).to_sparse(),
    ],
)
def test_what_holds_no_real_numbers_is_refused(probe, X):
    _, y = rows()
    with pytest.raises(ValueError, match="real numbers, got dtype"):
        probe.fit(X, y)


def test_one_feature_of_another_size_drowns_no_other():
    """A jitter relative to the largest feature would."""
    x, y = rows()
    x[:, 0] *= 1e9
    for name in ("logistic", "ridge", "mlp"):
        assert make(name).fit(x[:, 1:], y).score(x[:, 1:], y) > 0.9
        for dtype in (np.float32, np.float64):
            assert make(name).fit(x.astype(dtype), y).score(x.astype(dtype), y) > 0.9
