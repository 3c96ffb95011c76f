"""Every fact that a model declares is held against what happens; see conftest.py for the cases."""

from types import SimpleNamespace
from typing import Any

import pytest
import torch

from interp.models import MODELS, build_model, config_class
from interp.training import TrainingConfig
from interp.training.optimizer import Optimizers

POS = 5  # where two runs part


def on_hooks(case) -> list[str]:
    return [name for name in case.model.hook_dict if case.model._switch_off(name) is None]


def other_tokens(case) -> torch.Tensor:
    return (case.tokens + 1) % case.model.cfg.d_vocab


def taken_from(cache, names, *, model: Any = None, before: int | None = None) -> list[tuple]:
    """Hooks that put in another run's values, at all positions or at those before one."""

    def put(act, hook):
        if before is None:
            return cache[hook.name]
        axis = model.axes(hook.name).index("pos")
        return torch.cat(
            [cache[hook.name].narrow(axis, 0, before), act.narrow(axis, before, act.shape[axis] - before)], axis
        )

    return [(name, put) for name in names]


def sizes(model: Any, tokens: torch.Tensor) -> dict[str, int]:
    cfg = model.cfg
    pos = tokens.shape[1]
    known = {"batch": len(tokens), "pos": pos, "query_pos": pos, "key_pos": pos, "scale": 1}
    known |= {name: getattr(cfg, name) for name in dir(cfg) if name.startswith("d_")}
    for side in ("prompt", "answer") if hasattr(cfg, "n_prompt") else ():
        known |= {f"{side}_{axis}": getattr(cfg, f"n_{side}") for axis in ("pos", "query_pos", "key_pos")}
    known |= {"memory_reader": 2 * cfg.n_heads} if hasattr(cfg, "n_encoder") else {}
    known |= {"step": cfg.n_loops} if hasattr(cfg, "n_loops") else {}
    if hasattr(cfg, "n_slots"):
        addresses, values, kinds = cfg.n_slots, cfg.n_values, 19
        known |= {"slot": addresses, "address": addresses, "kind": kinds, "argument": 2, "step": cfg.max_steps}
        known |= {"planned": kinds + values + 4 * addresses, "held": kinds + 3 * addresses + values}
        known |= {"alu_in": 2 * values + 2, "alu_out": values + 2, "register": 2 + addresses}
    known |= {"householder": cfg.n_householder} if hasattr(cfg, "n_householder") else {}
    return known | ({"head": cfg.n_heads, "reader": 3 * cfg.n_heads} if hasattr(cfg, "n_heads") else {})


def check_axes(model: Any, tokens: torch.Tensor, names: list[str]) -> None:
    """Fire these hooks together and hold each activation's shape against the axes asked for in between."""
    expected, fired = sizes(model, tokens), set()

    def look(act, hook):
        axes = model.axes(hook.name)
        assert act.shape == tuple(expected[axis] for axis in axes), (hook.name, axes, act.shape)
        distinct = {axis: expected[axis] for axis in axes if not axis.endswith("query_pos")}
        assert len(set(distinct.values())) == len(distinct), f"{hook.name}: two axes of one size show nothing"
        fired.add(hook.name)

    model.run_with_hooks(tokens, fwd_hooks=[(name, look) for name in names])
    assert fired == set(names)


@torch.no_grad()
def test_axes_at_every_hook(case):
    tokens = case.tokens.repeat(4, 1)[:10]  # a batch as large as no other axis
    switches = set(case.model.switches.values())
    for on in ((), switches - {"use_attn_in"}, switches - {"use_split_qkv_input"}):
        for switch in sorted(switches):
            getattr(case.model, f"set_{switch}")(False)
        for switch in sorted(on):
            getattr(case.model, f"set_{switch}")(True)
        names = on_hooks(case)
        check_axes(case.model, tokens, names)
        for name in names:  # alone, with what else may fire lazily silent
            check_axes(case.model, tokens, [name])
        for alias, name in case.model.aliases.items():
            assert case.model.axes(alias) == case.model.axes(name)
    for ask in (case.model.axes, case.model.layer_of):
        with pytest.raises(ValueError, match="no hook point 'blocks.0.hook_nothing'"):
            ask("blocks.0.hook_nothing")


@torch.no_grad()
def test_residual_hooks_are_whole_cuts(case):
    model, names = case.model, case.model.residual_hooks()
    clean, (other, cache) = model(case.tokens), model.run_with_cache(other_tokens(case))
    assert not torch.allclose(clean, other, atol=1e-2)
    for name in names:
        patched = model.run_with_hooks(case.tokens, fwd_hooks=taken_from(cache, [name]))
        torch.testing.assert_close(patched, other, atol=1e-5, rtol=0, msg=name)
    if names:
        assert [model.layer_of(name) for name in names] == [0, *range(len(names) - 1)]


@torch.no_grad()
def test_carriers_are_all_that_later_positions_learn_of_earlier_ones(case):
    model, carriers = case.model, case.model.carrier_hooks()
    tokens = torch.cat([other_tokens(case)[:, :POS], case.tokens[:, POS:]], dim=1)
    clean, (other, cache) = model(case.tokens), model.run_with_cache(tokens)
    assert not torch.allclose(clean[:, POS:], other[:, POS:], atol=1e-3)
    if not carriers:  # then positions look ahead: a later token changes an earlier answer
        later = torch.cat([case.tokens[:, :POS], other_tokens(case)[:, POS:]], dim=1)
        assert not torch.allclose(model(later)[:, :POS], clean[:, :POS], atol=1e-3)
        return
    patched = model.run_with_hooks(case.tokens, fwd_hooks=taken_from(cache, carriers, model=model, before=POS))
    torch.testing.assert_close(patched[:, POS:], other[:, POS:], atol=1e-5, rtol=0)
    for left_out in carriers:  # and each of them is needed
        rest = [name for name in carriers if name != left_out]
        patched = model.run_with_hooks(case.tokens, fwd_hooks=taken_from(cache, rest, model=model, before=POS))
        assert not torch.allclose(patched[:, POS:], other[:, POS:], atol=1e-5), left_out


@torch.no_grad()
def test_attention_hooks_are_the_patterns(case):
    model, names = case.model, case.model.attention_hooks()
    _, cache = model.run_with_cache(case.tokens)
    for name in names:
        batch, head, query, key = model.axes(name)
        assert (batch, head) == ("batch", "head") and query.endswith("query_pos") and key.endswith("key_pos")
        torch.testing.assert_close(cache[name].sum(-1), torch.ones_like(cache[name][..., 0]))
        if model.carrier_hooks():  # no key after its query: the order of the last two axes
            assert cache[name].triu(1).abs().max() == 0
    assert {name for name in cache if name.endswith("hook_pattern")} == set(names)


@torch.no_grad()
def test_the_layer_of_a_hook(case):
    """An edit at a hook of layer l leaves the stream before that layer alone and changes the one after it."""
    case.switch()
    model, streams = case.model, case.model.residual_hooks()
    _, clean = model.run_with_cache(case.tokens, names_filter=list(streams))
    for name in on_hooks(case):
        layer = model.layer_of(name)
        if layer is None or not streams:
            continue
        with model.hooks(fwd_hooks=[(name, lambda act, hook: act + torch.linspace(0, 1, act.numel()).view_as(act))]):
            _, edited = model.run_with_cache(case.tokens, names_filter=list(streams))
        changed = [not torch.equal(clean[stream], edited[stream]) for stream in streams]
        assert changed[: layer + 1] == [stream == name for stream in streams[: layer + 1]], name
        assert changed[layer + 1], name
    outside = {name for name in model.hook_dict if model.layer_of(name) is None}
    assert "hook_embed" in outside
    assert not any(name.startswith("blocks.") for name in outside)


def test_hidden_matrices_are_what_muon_trains(case):
    model = case.model
    hidden = model.hidden_matrices()
    inside = (
        "blocks.",
        "encoder_blocks.",
        "decoder_blocks.",
        "prelude.",
        "core.",
        "coda.",
    )  # where an architecture keeps its blocks
    if not [p for name, p in model.named_parameters() if name.startswith(inside) and p.ndim == 2]:
        assert not hidden
        pytest.skip("the architecture has no hidden matrices")
    assert {p.ndim for p in hidden} == {2}
    muon = Optimizers(model, TrainingConfig(optimizer="muon"))._optimizers["muon"]
    assert [id(p) for group in muon.param_groups for p in group["params"]] == [id(p) for p in hidden]
    ends = {id(p) for name, p in model.named_parameters() if name.startswith(("embed", "pos_embed", "unembed"))}
    rest = [name for name, p in model.named_parameters() if id(p) not in {*ends, *(id(h) for h in hidden)}]
    # no matrix is forgotten; what has two axes and is no linear map: taps and rates of each channel, tables by distance
    tables = ("conv.weight", "A_log", "W_rel", "near_keys")
    assert not [n for n in rest if model.get_parameter(n).ndim != 1 and not n.endswith(tables)]


@torch.no_grad()
def test_entering_layers(case):
    model = case.model
    if not model.can_enter_layers:
        with pytest.raises((TypeError, ValueError)):
            model(case.tokens, stop_at_layer=0)
        return
    for layer in range(len(model.residual_hooks())):
        resid = model(case.tokens, stop_at_layer=layer)
        torch.testing.assert_close(model(resid, start_at_layer=layer), model(case.tokens), atol=1e-5, rtol=0)


@torch.no_grad()
def test_the_longest_sequence(case):
    longest = case.model.longest
    length = 3 * case.model.cfg.n_ctx if longest is None else longest
    tokens = case.tokens[:1, torch.arange(length) % case.tokens.shape[1]]
    assert case.model(tokens).isfinite().all()
    if longest is not None:
        with pytest.raises(ValueError, match=f"got {longest + 1}"):
            case.model(torch.cat([tokens, tokens[:, :1]], dim=1))


def test_the_answer_is_the_tasks_unless_a_model_brings_its_own(case):
    if hasattr(case.model, "all_heads"):
        pytest.skip("several heads answer in their own way, held against a loop in tests/tasks/test_addition_task.py")

    class Task:
        def answer(self, model, batch):
            return model(batch).argmax(-1)

    assert torch.equal(case.model.answer(Task(), case.tokens), case.model(case.tokens).argmax(-1))


def test_every_entry_of_the_registry():
    for name, architecture in MODELS.items():
        assert config_class(name) is architecture.config
        assert architecture.config.__dataclass_params__.frozen  # type: ignore[attr-defined]
        fields = set(architecture.config.__dataclass_fields__)  # type: ignore[attr-defined]
        assert fields >= {"architecture", "d_vocab", "n_ctx", "seed", "dtype"}
        assert architecture.config.architecture == name  # type: ignore[attr-defined]
        assert architecture.words.endswith(".")
        assert architecture.words.count(".") == 1
        shown = {"n_ctx": 4, "prompt_positions": slice(0, 2), "answer_positions": (1, 2), "shows_answer": True}
        shown["has_plan"] = True
        both = ("causal", "bidirectional")
        said = [architecture.suits(SimpleNamespace(name="a", attention_dir=each, **shown)) for each in both]
        assert said[0] is None and (said[1] is None or "the task a" in said[1])
    with pytest.raises(ValueError, match=f"architecture must be one of {', '.join(MODELS)}; got 'perceptron'"):
        config_class("perceptron")


def test_a_model_built_in_inference_mode_can_be_trained(case):
    """Whoever asks first for a run's model may be measuring: its weights take gradients all the same."""
    with torch.inference_mode():
        model = build_model(case.model.cfg)
    getattr(model, "all_heads", model)(case.tokens).sum().backward()
    assert all(p.grad is not None or not p.requires_grad for p in model.parameters())
    assert not any(b.is_inference() for b in model.buffers())


def test_what_is_made_in_inference_mode_is_used_with_gradients(case):
    """Tokens, and weights moved to another dtype; and gradients are cached in the midst of it."""
    plain, model = build_model(case.model.cfg).to(torch.float64), build_model(case.model.cfg)
    _, expected = plain.run_with_cache(case.tokens, incl_bwd=True, metric=lambda logits: logits[:, -1].sum())
    plain.zero_grad()
    plain(case.tokens).sum().backward()
    with torch.inference_mode():
        tokens = case.tokens.clone()
        model.to(torch.float64)
        _, cache = model.run_with_cache(tokens, incl_bwd=True, metric=lambda logits: logits[:, -1].sum())
        assert torch.is_inference_mode_enabled()
    assert cache["hook_embed_grad"].any() == expected["hook_embed_grad"].any()
    model(tokens).sum().backward()
    trained = {name for name, p in plain.named_parameters() if p.grad is not None}
    assert {name for name, p in model.named_parameters() if p.grad is not None} == trained
