"""TransformerLens's own tools run on our models, and say what is so."""

from typing import Any, cast

import pytest
import torch
from transformer_lens import SVDInterpreter
from transformer_lens.head_detector import detect_head
from transformer_lens.tools import analysis

from interp.models import TransformerConfig, build_model

CFG = TransformerConfig(d_vocab=7, n_ctx=12, n_layers=3, n_heads=2, d_model=8, d_head=3, normalization_type="LN")


@pytest.fixture
def model() -> Any:
    model: Any = build_model(CFG).eval()
    model.vocab = tuple("abcdefg")
    generator = torch.Generator().manual_seed(0)
    with torch.no_grad():
        for parameter in model.parameters():
            parameter += 0.3 * torch.randn(parameter.shape, generator=generator)
    return model


@pytest.mark.parametrize("dtype", [torch.float32, torch.float64])
def test_head_detector(model, dtype):
    """The share of a head's attention that goes where the pattern says, from the patterns themselves."""
    model = model.to(dtype)
    scores = detect_head(model, "abcabcab", "previous_token_head")
    assert scores.dtype == dtype
    _, cache = model.run_with_cache("abcabcab")
    for layer in range(3):
        pattern = cache["pattern", layer][0]
        torch.testing.assert_close(scores[layer], pattern.diagonal(-1, 1, 2).sum(-1) / pattern.sum((-2, -1)))
    several = detect_head(model, ["abcabcab", "aabbccdd"], "induction_head")
    one_by_one = [detect_head(model, text, "induction_head") for text in ("abcabcab", "aabbccdd")]
    torch.testing.assert_close(several, sum(one_by_one) / 2)


def test_svd_interpreter(model):
    """Readouts of singular vectors: products with their own singular values restore the matrix's readout."""
    interpreter = SVDInterpreter(model)
    ln2 = model.blocks[1].ln2.w
    for kind, matrix in (
        ("OV", model.W_V[1, 1] @ model.W_O[1, 1]),
        ("w_in", model.W_in[1].T * ln2),
        ("w_out", model.W_out[1]),
    ):
        found = interpreter.get_singular_vectors(
            cast(Any, kind), 1, num_vectors=3, head_index=1 if kind == "OV" else None
        )
        _, values, right = torch.linalg.svd(matrix)
        expected = (right[:3] @ model.W_U).T[:, None]
        signs = torch.sign((found * expected).sum(0, keepdim=True))
        torch.testing.assert_close(found, expected * signs, atol=1e-4, rtol=1e-3)
        assert values[0] > values[2] > 1e-3


def test_attribution_patching_and_logit_lens(model):
    """A node's score is its difference times the gradient on the corrupted run, at its position."""
    clean, corrupted = torch.tensor([[0, 1, 2, 3]]), torch.tensor([[0, 4, 2, 3]])

    def metric(logits):
        return logits[:, -1, 5].sum()

    result = analysis.attribution_patch(model, clean, corrupted, metric)
    _, aim = model.run_with_cache(clean)
    _, start = model.run_with_cache(corrupted, incl_bwd=True, metric=metric)
    for node, score in result.node_scores.items():
        attn = f"blocks.{node.layer}.attn.hook_z"
        name = {"embed": "hook_embed", "attn_head_out": attn}.get(node.kind, f"blocks.{node.layer}.hook_mlp_out")
        effects = ((aim[name] - start[name]) * start[name + "_grad"])[0, node.position]
        expected = effects.sum() if node.head is None else effects[node.head].sum()
        torch.testing.assert_close(torch.tensor(score), expected.detach(), atol=1e-5, rtol=1e-4)
    assert sum(abs(score) > 1e-4 for score in result.node_scores.values()) > 10
    lens = analysis.logit_lens(model, clean, positions=None)
    torch.testing.assert_close(lens.values[-1], model(clean), atol=1e-5, rtol=1e-5)


def test_names_for_tools_of_hugging_face(model):
    """What pyvene reads off a model."""
    assert model.config is model.cfg
    assert model.device == torch.device("cpu")
    assert model.dtype == model.cfg.dtype == torch.float32
    assert model.config.to_dict()["dtype"] == "float32"
    assert model.double().config.dtype == torch.float64
    assert model.config.to_dict()["dtype"] == "float32"  # as it was built, and as its run says


def test_every_weight_by_its_full_name(model):
    named = model.tl_parameters()
    assert torch.equal(named["blocks.2.attn.W_V"], model.W_V[2])
    assert torch.equal(named["unembed.W_U"], model.W_U)
    assert torch.equal(named["blocks.0.ln1.w"], model.blocks[0].ln1.w)
    numbers = sum(p.numel() for p in model.parameters())
    assert sum(weight.numel() for weight in named.values()) == numbers
    assert torch.equal(model.W_E_pos, torch.cat([model.W_E, model.W_pos]))


def test_composition_scores(model):
    """Against the products written out, head by head."""
    assert model.all_head_labels == ["L0H0", "L0H1", "L1H0", "L1H1", "L2H0", "L2H1"]
    QK = torch.einsum("lhmd,lhnd->lhmn", model.W_Q, model.W_K)
    OV = torch.einsum("lhmd,lhdn->lhmn", model.W_V, model.W_O)
    for mode, right in (("Q", QK), ("K", QK.transpose(-2, -1)), ("V", OV)):
        scores = model.all_composition_scores(mode)
        assert scores.shape == (3, 2, 3, 2)
        for l1, h1, l2, h2 in torch.cartesian_prod(*(torch.arange(n) for n in scores.shape)).tolist():
            product = OV[l1, h1] @ right[l2, h2]
            expected = product.norm() / OV[l1, h1].norm() / right[l2, h2].norm() if l1 < l2 else torch.tensor(0.0)
            torch.testing.assert_close(scores[l1, h1, l2, h2], expected, atol=1e-5, rtol=1e-4)
    with pytest.raises(ValueError, match="mode must be 'Q', 'K' or 'V'; got 'O'"):
        model.all_composition_scores("O")


def test_directions_are_copies(case):
    """Writing into a direction must not write into the unembedding."""
    case.model.vocab = tuple("ABCDEFGHIJKLM")
    before = case.model.W_U.detach().clone()
    with torch.no_grad():
        for asked in (2, "C", torch.tensor(2), torch.tensor([2, 3]), torch.tensor([[2]])):
            case.model.tokens_to_residual_directions(asked).zero_()
    assert torch.equal(case.model.W_U, before)
    with pytest.raises(ValueError, match="tokens must be from 0 to 12; got -1 to -1"):
        case.model.tokens_to_residual_directions(-1)
