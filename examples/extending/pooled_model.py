"""An architecture: each layer reads the average of all tokens so far. No attention, no longest sequence."""

from dataclasses import dataclass

import torch
from torch import nn
from transformer_lens.hook_points import HookPoint

from interp.models import MODELS, Architecture, HookedModel


@dataclass(frozen=True)
class PooledConfig:
    d_vocab: int
    n_ctx: int
    d_model: int = 32
    n_layers: int = 2
    seed: int = 0
    dtype: str = "float32"
    architecture: str = "pooled"


class Layer(nn.Module):
    def __init__(self, d: int):
        super().__init__()
        self.mix, self.out = nn.Linear(2 * d, 4 * d), nn.Linear(4 * d, d)
        self.hook_resid_pre, self.hook_mean, self.hook_resid_post = HookPoint(), HookPoint(), HookPoint()

    def forward(self, x):
        x = self.hook_resid_pre(x)  # [batch, pos, d_model]
        mean = self.hook_mean(x.cumsum(1) / torch.arange(1, x.shape[1] + 1, device=x.device)[:, None])
        return self.hook_resid_post(x + self.out(torch.relu(self.mix(torch.cat([x, mean], dim=-1)))))


class Pooled(HookedModel):
    points = ("hook_embed", "hook_resid_pre", "hook_mean", "hook_resid_post")
    declared_axes, longest = dict.fromkeys(points, ("batch", "pos", "d_model")), None

    def __init__(self, cfg: PooledConfig):
        super().__init__()
        self.cfg, d = cfg, cfg.d_model
        torch.manual_seed(cfg.seed)  # build_model leaves the caller's stream alone
        self.embed, self.hook_embed = nn.Embedding(cfg.d_vocab, d), HookPoint()
        self.blocks = nn.Sequential(*(Layer(d) for _ in range(cfg.n_layers)))
        self.ln_final, self.unembed = nn.LayerNorm(d), nn.Linear(d, cfg.d_vocab)
        self.setup()

    W_U = property(lambda self: self.unembed.weight.T)  # [d_model, d_vocab]
    b_U = property(lambda self: self.unembed.bias)

    def compute(self, tokens):
        return self.unembed(self.ln_final(self.blocks(self.hook_embed(self.embed(tokens)))))

    def residual_hooks(self):
        return ("blocks.0.hook_resid_pre", *(f"blocks.{i}.hook_resid_post" for i in range(self.cfg.n_layers)))


MODELS["pooled"] = Architecture(PooledConfig, Pooled, "Layers that read the average of all tokens so far.")
