"""PaTH: positions made from what stands between two tokens, as Householder-like products (Yang et al. 2025).

Position s has a unit vector w_s and a strength β_s in (0, 2), and `H_s = I - β_s w_s w_sᵀ`. A key is carried to a later
query through every token between them:

    score(i, j) = q_iᵀ H_i H_{i-1} … H_{j+1} k_j,   j <= i

1. Within a chunk: carrying k_j on takes u_s = β_s w_sᵀ (what has been carried to s - 1) off along w_s at each s > j.
   All u are one unit lower triangular system, (I + tril(β W Wᵀ, -1)) U = β W Kᵀ with entries s <= j zero (the UT
   transform), and the scores are tril(Q Kᵀ) - tril(Q Wᵀ) U. The same system with right side β W gives V, the chunk's
   whole product I - Wᵀ V, keys carried to the chunk's end, K - Uᵀ W, and queries taken back to its start,
   Q - tril(Q Wᵀ) V.
2. Between chunks: from the last to the first, the queries of all later chunks meet the keys that were carried to this
   chunk's end, and are then taken back through its product.

In a bidirectional model, which the paper does not have, the path between two tokens is the same from either end: a
query before its key is carried to the key, score(i, j) = k_jᵀ H_j … H_{i+1} q_i for j > i.

Each head's w is a plain projection of the normalised residual stream; the paper's is of low rank and passes a short
convolution. Everything is computed in float32 at least.
"""

from __future__ import annotations

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from interp.models.config import TransformerConfig

CHUNK = 32  # positions; of 8 to 128 the fastest, or near it, at lengths 148 and 1,184, forward and backward


class HouseholderPositions(nn.Module):
    """The two projections: w [batch, pos, head, d_head], of unit length, and beta [batch, pos, head] from 0 to 2."""

    def __init__(self, cfg: TransformerConfig) -> None:
        super().__init__()
        self.n_heads, self.d_head = cfg.n_heads, cfg.d_head
        self.w = nn.Linear(cfg.d_model, cfg.n_heads * cfg.d_head, bias=cfg.use_bias)
        self.beta = nn.Linear(cfg.d_model, cfg.n_heads, bias=cfg.use_bias)

    def forward(self, x: Tensor) -> tuple[Tensor, Tensor]:
        """From [batch, pos, d_model], or each head's own input [batch, pos, head, d_model]."""
        heads = (self.n_heads, self.d_head)
        if x.ndim == 4:
            w = torch.einsum("bphm,hdm->bphd", x, self.w.weight.unflatten(0, heads))
            logits = torch.einsum("bphm,hm->bph", x, self.beta.weight)
            if self.w.bias is not None:
                w, logits = w + self.w.bias.view(heads), logits + self.beta.bias
        else:
            w, logits = self.w(x).unflatten(-1, heads), self.beta(x)
        return F.normalize(_raised(w), dim=-1).to(w.dtype), (2 * torch.sigmoid(_raised(logits))).to(logits.dtype)


def path_scores(q: Tensor, k: Tensor, w: Tensor, beta: Tensor, *, causal: bool = True, chunk: int = CHUNK) -> Tensor:
    """Scores before scale, mask and softmax, [batch, head, query_pos, key_pos]; causally 0 where j > i.

    Args:
        q: [batch, head, query_pos, d_head]; the queries are the last of the keys' positions.
        k, w: [batch, head, key_pos, d_head].
        beta: [batch, head, key_pos].
        causal: False: keys behind their query count too, and query_pos = key_pos.
        chunk: positions in a chunk.
    """
    with torch.autocast(q.device.type, enabled=False):
        q, k, w, beta = (_raised(x) for x in (q, k, w, beta))
        before = _scores_before(q, k, w, beta, chunk)
        if causal:
            return before
        return before + _scores_before(k, q, w, beta, chunk).tril(-1).mT


def _scores_before(q: Tensor, k: Tensor, w: Tensor, beta: Tensor, chunk: int) -> Tensor:
    n_queries, n_old = q.shape[2], k.shape[2] - q.shape[2]
    # Chunks of queries start at the first query: what is older has chunks of its own, without queries.
    own = _Chunks(k[:, :, n_old:], w[:, :, n_old:], beta[:, :, n_old:], chunk)
    queries = _cut(q, chunk)  # [batch, head, chunk, pos, d_head]
    met = (queries @ own.w.mT).tril()  # [batch, head, chunk, query, s]
    inside = ((queries @ own.k.mT).tril() - met @ own.u).unbind(2)
    returned = (queries - met @ own.v).unbind(2)  # taken back to the start of their chunk
    columns: list[Tensor] = []
    later: Tensor | None = None  # the queries of the chunks behind, taken back to this one's end
    for at in reversed(range(len(inside))):
        column = inside[at]
        if later is not None:
            column = torch.cat([column, later @ own.carried[:, :, at].mT], dim=2)
            later = torch.cat([returned[at], later @ own.product[:, :, at]], dim=2)
        else:
            later = returned[at]
        columns.append(F.pad(column, (0, 0, at * chunk, 0)))  # queries of earlier chunks see none of these keys
    scores = torch.cat(columns[::-1], dim=-1)[:, :, :n_queries, :n_queries]
    if not n_old:
        return scores
    assert later is not None
    old, columns = _Chunks(k[:, :, :n_old], w[:, :, :n_old], beta[:, :, :n_old], chunk), []
    later = later[:, :, :n_queries]
    for at in reversed(range(old.k.shape[2])):
        columns.append(later @ old.carried[:, :, at].mT)
        later = later @ old.product[:, :, at]
    return torch.cat([torch.cat(columns[::-1], dim=-1)[..., :n_old], scores], dim=-1)


class _Chunks:
    """Keys and transitions by chunk, with what step 1 solves for; padded positions hold zeros, so H is I there."""

    def __init__(self, k: Tensor, w: Tensor, beta: Tensor, chunk: int) -> None:
        self.k, self.w = _cut(k, chunk), _cut(w, chunk)  # [batch, head, chunk, pos, d_head]
        beta_w = _cut(beta[..., None] * w, chunk)
        # solve_triangular takes the diagonal as ones and reads only what is below
        sides = torch.cat([(beta_w @ self.k.mT).tril(-1), beta_w], dim=-1)
        solved = torch.linalg.solve_triangular(beta_w @ self.w.mT, sides, upper=False, unitriangular=True)
        self.u, self.v = solved.split([chunk, w.shape[-1]], dim=-1)
        self.carried = self.k - self.u.mT @ self.w  # keys at the chunk's end
        self.product = torch.eye(w.shape[-1], dtype=w.dtype, device=w.device) - self.w.mT @ self.v


def _cut(x: Tensor, chunk: int) -> Tensor:
    """[batch, head, pos, d] into chunks of positions, padded with zeros at the end."""
    return F.pad(x, (0, 0, 0, -x.shape[2] % chunk)).unflatten(2, (-1, chunk))


def _raised(x: Tensor) -> Tensor:
    return x.to(torch.promote_types(x.dtype, torch.float32))
