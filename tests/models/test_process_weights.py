"""Weights rewritten by process_weights compute the same, and are what each step promises."""

import copy

import pytest
import torch

STEPS = ("fold_ln", "center_writing_weights", "center_unembed", "fold_value_biases")


@pytest.fixture
def case(transformer_case):
    return transformer_case


@pytest.mark.parametrize(
    "steps",
    [
        {},
        {"center_unembed": False},
        *({name: True} for name in STEPS),
    ],
    ids=lambda steps: ", ".join(steps) or "all",
)
@torch.no_grad()
def test_processed_weights_compute_the_same(case, steps):
    alone = dict.fromkeys(STEPS, False) if True in steps.values() else {}
    model, processed = case.model, copy.deepcopy(case.model)
    processed.process_weights(**{**alone, **steps})
    on = {**dict.fromkeys(STEPS, True), **alone, **steps}
    logits, expected = processed(case.tokens), model(case.tokens)
    cfg = model.cfg
    if on["center_unembed"] and not cfg.tie_word_embeddings:
        torch.testing.assert_close(logits.mean(-1), torch.zeros_like(logits[..., 0]), atol=1e-4, rtol=0)
        logits, expected = logits.log_softmax(-1), expected.log_softmax(-1)
    torch.testing.assert_close(logits, expected, atol=2e-4, rtol=1e-4)
    watched, cache = processed.run_with_cache(case.tokens)
    torch.testing.assert_close(watched, processed(case.tokens), atol=1e-4, rtol=1e-4)
    if on["fold_ln"]:
        folded = [name for name in ("ln1", "ln2") if hasattr(getattr(processed.blocks[0], name, None), "w")]
        norms = [getattr(block, name) for block in processed.blocks for name in folded]
        assert all((norm.w == 1).all() and (norm.b is None or (norm.b == 0).all()) for norm in norms)
    if on["center_writing_weights"] and cfg.normalization_type == "LN":
        for layer in range(cfg.n_layers):
            for written in ("attn_out", "mlp_out"):
                torch.testing.assert_close(cache[written, layer].mean(-1), torch.zeros(3, 9), atol=1e-5, rtol=0)
    if on["fold_value_biases"]:
        assert (processed.b_V == 0).all()
    assert model.state_dict().keys() == processed.state_dict().keys()
    applies = {
        "fold_ln": cfg.normalization_type is not None,
        "center_writing_weights": cfg.normalization_type == "LN",
        "center_unembed": not cfg.tie_word_embeddings,
        "fold_value_biases": cfg.use_bias,
    }
    changed = any(not torch.equal(p, q) for p, q in zip(model.parameters(), processed.parameters(), strict=True))
    assert changed == any(on[name] and applies[name] for name in STEPS)
