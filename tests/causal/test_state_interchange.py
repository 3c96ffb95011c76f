"""State interchange: parts of what a model carries, put into another stream and judged by the machine."""

from functools import partial
from typing import Any

import pytest
import torch

from cython_vm import MachineSpec
from interp.interventions import Carrier, SubspaceFit, carrier_swapped, fit_subspace, parts_of, state_rows
from interp.models import MODELS, build_model
from interp.results import Method, rows_frame, select
from interp.tasks import Trace
from interp.tasks.options import TaskOptions

from .test_patching import n_hooks
from .test_state import transformer

SPEC = MachineSpec(n_instructions=24, n_cells=3, n_input=4, n_output=6, bits=2)
TASK = Trace(SPEC, TaskOptions(n_steps=12))
STATEFUL = ("rnn", "gru", "lstm", "mamba", "mamba2", "linear_attention", "delta")


def model_named(name: str) -> Any:
    if name not in MODELS or name == "transformer":
        return transformer(name)
    extra = {"conv_size": 3} if name in ("mamba", "mamba2", "linear_attention", "delta") else {}
    config = MODELS[name].config(d_vocab=len(TASK.vocab), n_ctx=TASK.n_ctx, n_layers=2, d_model=16, **extra)
    return build_model(config).eval()


def streams(model: Any, seed: int) -> torch.Tensor:
    generator = torch.Generator().manual_seed(seed)
    return torch.randint(model.cfg.d_vocab, (6, 12), generator=generator)


@pytest.mark.parametrize("name", [*STATEFUL, "rotary", "learned"])
def test_the_whole_carrier_is_the_source_so_far(name: str) -> None:
    """Whichever way the model is run, and each row at its own position: the same answers as hooks at all carriers."""
    model = model_named(name)
    carrier = Carrier.of(model)
    base, source, at = streams(model, 0), streams(model, 1), torch.tensor([0, 3, 4, 7, 9, 10])
    last = torch.full_like(at, 11)
    (whole,) = parts_of(carrier, ["all"])
    read = [carrier.read(model, tokens, at) for tokens in (base, source)]
    said = carrier.answers(model, base, at, whole.exchanged(*read), last)
    alone = carrier.answers(model, base, at, read[0], last)
    for row, t in enumerate(at.tolist()):
        expected = carrier_swapped(model, base[row : row + 1], source[row : row + 1], t).argmax(-1)[0]
        assert torch.equal(said[row, t + 1 :], expected[t + 1 :])
        assert torch.equal(alone[row, t + 1 :], model(base[row : row + 1]).argmax(-1)[0, t + 1 :])
        assert (said[row, : t + 1] == -1).all()
    assert n_hooks(model) == 0


@pytest.mark.parametrize("name", ["lstm", "delta", "mamba2"])
def test_a_part_leaves_the_other_layers_as_they_are(name: str) -> None:
    """A layer's part, put in through hooks that then set every other carrier back to base's."""
    model = model_named(name)
    carrier, t = Carrier.of(model), 5
    base, source, at = streams(model, 0), streams(model, 1), torch.full((6,), t := 5)
    (layer,) = parts_of(carrier, ["layer0"])
    read = [carrier.read(model, tokens, at) for tokens in (base, source)]
    mixed = carrier.split(layer.exchanged(*read))
    for hook, value in mixed.items():
        torch.testing.assert_close(value, carrier.split(read["blocks.0." in hook])[hook])
    logits = carrier.logits(model, base, at, layer.exchanged(*read), 6)

    def put(activation: torch.Tensor, hook: Any, value: torch.Tensor) -> torch.Tensor:
        patched = activation.clone()
        patched[:, t] = value
        return patched

    with model.hooks(fwd_hooks=[(hook, partial(put, value=value)) for hook, value in mixed.items()]):
        expected = model(base)[:, t + 1 :]
    torch.testing.assert_close(logits, expected, atol=1e-5, rtol=1e-5)


@pytest.mark.parametrize("name", [*STATEFUL, "rotary"])
def test_layers_and_groups_make_up_the_whole(name: str) -> None:
    carrier = Carrier.of(model_named(name))
    parts = parts_of(carrier)
    layers = [part for part in parts if part.name.startswith("layer") and "." not in part.name]
    masks = torch.stack([part.mask for part in layers if part.mask is not None])
    assert (masks.sum(0) == 1).all() and len(layers) == 2
    for part in parts:
        if "." in part.name and part.mask is not None:
            number = int(part.name[len("layer") : part.name.index(".")])
            assert 0 < part.size < layers[number].size
            assert not (part.mask & ~masks[number]).any()


def test_random_parts_are_of_equal_size() -> None:
    carrier, generator = Carrier.of(model_named("gru")), torch.Generator().manual_seed(0)
    for part in parts_of(carrier):
        random = part.random(carrier.size, generator=generator)
        assert (random is None) == (part.name == "all")
        assert random is None or random.size == part.size
    with pytest.raises(ValueError, match="no part 'layer7'"):
        parts_of(carrier, ["layer7"])


def test_rows_of_an_untrained_model() -> None:
    """Every part has its controls on the same pairs, and the sizes of part and carrier beside."""
    model = model_named("gru")
    rows = state_rows(
        model, TASK, "cell[1]", parts=("all", "layer1"), methods=(Method.MEAN_DIFFERENCE, Method.DAS), n_pairs=24,
        untrained=model_named("gru"), fit=SubspaceFit(n_pairs=32, rank=3, steps=3), n_bootstrap=20,
    )  # fmt: skip
    frame = rows_frame(rows)
    assert set(frame.carrier_size) == {2 * 16}
    pooled = frame.loc[frame.lag.isna() & frame.op.isna() & (frame.stratum == "changes") & (frame.metric == "iia")]
    for part, size in {"all": 32, "layer1": 16, "mean_difference": None, "das": 3}.items():
        mine = select(pooled, part=part)
        mine = mine.loc[~mine.control.eq("same_value").fillna(False)]  # on some of the bases, with other sources
        controls = {"unpatched", "wrong_time"}
        controls |= {"random_part"} if part != "all" else set()
        controls |= {"untrained_model"} if size in (None, 3) else set()
        assert set(mine.control.dropna()) == controls
        assert set(mine.n) == {24}
        assert size is None or set(mine.part_size) == {size}
    assert len(select(frame, control="same_value", part="layer1", metric="iia")) > 0
    # left alone, the model is judged against the edited answer: the same number whatever the part
    assert select(pooled, control="unpatched").estimate.nunique() == 1
    beside = frame.loc[frame.stratum == "bystanders"]
    assert set(beside.metric) == {"side_accuracy"} and set(beside.n) == {24}
    by_lag = frame.loc[frame.lag.notna() & (frame.part == "all") & frame.control.isna() & (frame.metric == "iia")]
    assert int(by_lag.n.sum()) == 24


def test_a_model_that_carries_keys_has_no_vector_to_fit() -> None:
    model = model_named("rotary")
    carrier = Carrier.of(model)
    assert not carrier.is_state
    with pytest.raises(ValueError, match="one vector"):
        fit_subspace(Method.DAS, model, carrier, TASK.state_pairs(4, "cell[1]", seed=0))
