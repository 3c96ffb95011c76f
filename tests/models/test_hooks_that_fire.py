"""A hook that is accepted fires, at every entry point that takes hook names; what would not fire raises ValueError."""

from collections import Counter
from collections.abc import Callable
from typing import Any

import pytest
import torch

from interp.models import TransformerConfig, build_model

CFG = TransformerConfig(d_vocab=10, n_ctx=8, n_layers=2, n_heads=2, d_model=8, qk_norm=True)
TOKENS = torch.randint(10, (3, 6), generator=torch.Generator().manual_seed(0))
OFF = ("hook_result", "hook_attn_in", "hook_q_input", "hook_k_input", "hook_v_input", "hook_mlp_in")


@pytest.fixture
def model() -> Any:
    return build_model(CFG).eval()


def forward_and_backward(model: Any) -> None:
    model(TOKENS).sum().backward()


def by_run(model: Any, name: Any, hook: Callable) -> None:
    model.run_with_hooks(TOKENS, fwd_hooks=[(name, hook)])


def by_context(model: Any, name: Any, hook: Callable) -> None:
    with model.hooks(fwd_hooks=[(name, hook)]):
        model(TOKENS)


def by_backward_context(model: Any, name: Any, hook: Callable) -> None:
    with model.hooks(bwd_hooks=[(name, hook)]):
        forward_and_backward(model)


def by_backward_run(model: Any, name: Any, hook: Callable) -> None:
    out = model.run_with_hooks(TOKENS, bwd_hooks=[(name, hook)], reset_hooks_end=False)
    out.sum().backward()
    model.reset_hooks()


def by_add(model: Any, name: Any, hook: Callable) -> None:
    model.add_hook(name, hook)
    model(TOKENS)
    model.reset_hooks()


def by_add_backward(model: Any, name: Any, hook: Callable) -> None:
    model.add_hook(name, hook, dir="bwd")
    forward_and_backward(model)
    model.reset_hooks()


def by_add_permanently(model: Any, name: Any, hook: Callable) -> None:
    model.add_perma_hook(name, hook)
    model(TOKENS)
    model.reset_hooks(including_permanent=True)


HOOKING = [
    by_run,
    by_context,
    by_backward_context,
    by_backward_run,
    by_add,
    by_add_backward,
    by_add_permanently,
]


def caching_hooks(model: Any, names: Any) -> dict:
    cache, fwd, _ = model.get_caching_hooks(names)
    model.run_with_hooks(TOKENS, fwd_hooks=fwd)
    return cache


def added_caching_hooks(model: Any, names: Any) -> dict:
    cache = model.add_caching_hooks(names)
    model(TOKENS)
    model.reset_hooks()
    return cache


def cached_some(model: Any, names: Any) -> dict:
    cache: dict = {}
    model.cache_some(cache, names)
    model(TOKENS)
    model.reset_hooks()
    return cache


def run_with_cache(model: Any, names: Any) -> dict:
    return model.run_with_cache(TOKENS, names_filter=names, return_cache_object=False)[1]


CACHING = [caching_hooks, added_caching_hooks, cached_some, run_with_cache]


@pytest.mark.parametrize("enter", HOOKING, ids=lambda f: f.__name__)
def test_hooks_by_name_alias_and_predicate(model, enter):
    model.set_use_split_qkv_input(True)
    for asked, expected in (
        ("blocks.0.attn.hook_pattern", {"blocks.0.attn.hook_pattern"}),
        ("blocks.1.hook_q_input", {"blocks.1.hook_q_input"}),  # an alias: the hook sees it
        (lambda name: name.endswith("hook_scale"), {n for n in model.hook_dict if n.endswith("hook_scale")}),
        (lambda name: name == "blocks.1.hook_q_input", {"blocks.1.attn.hook_q_input"}),  # only as an alias
        (lambda name: "mlp" in name, {n for n in model.hook_dict if "mlp" in n and not n.endswith("mlp_in")}),
    ):
        fired: Counter[str] = Counter()
        enter(model, asked, lambda act, hook, fired=fired: fired.update([hook.name]))
        assert fired == dict.fromkeys(expected, 1)
    assert not any(model.list_hooks().values())


@pytest.mark.parametrize("enter", [*HOOKING, *CACHING], ids=lambda f: f.__name__)
def test_what_would_not_fire_is_refused(model, enter):
    hook = [lambda act, hook: None] if enter in HOOKING else []
    for asked, message in (
        ("blocks.0.hook_nothing", "no hook point 'blocks.0.hook_nothing'"),
        ("blocks.0.attn", "no hook point 'blocks.0.attn'"),  # a module, and no hook point
        (lambda name: name.endswith("hook_nothing"), "matches no hook point of the model"),
        *((f"blocks.0.{name}" if "mlp" in name else f"blocks.0.attn.{name}", r"fires only after set_") for name in OFF),
        *(
            (lambda n, name=name: n.endswith(name), r"only hook points that are switched off.*call set_")
            for name in OFF
        ),
    ):
        with pytest.raises(ValueError, match=message):
            enter(model, asked, *hook)
        assert not any(model.list_hooks().values())


def test_hooks_from_any_iterable(model):
    names = ["hook_embed", "blocks.1.attn.hook_pattern"]
    fired: Counter[str] = Counter()

    def hook(act, hook):
        fired[hook.name] += 1

    def pairs():
        yield from ((name, hook) for name in names)

    for make in (
        pairs,
        lambda: zip(names, [hook, hook], strict=True),
        lambda: tuple(pairs()),
        lambda: iter([*pairs()]),
    ):
        fired.clear()
        model.run_with_hooks(TOKENS, fwd_hooks=make())
        with model.hooks(fwd_hooks=make()):
            model(TOKENS)
        with model.hooks(bwd_hooks=make()):
            forward_and_backward(model)
        assert fired == dict.fromkeys(names, 3)


@pytest.mark.parametrize("enter", CACHING, ids=lambda f: f.__name__)
def test_names_of_a_cache_from_any_iterable(model, enter):
    names = ["hook_embed", "blocks.1.attn.hook_pattern"]
    for asked in (names, tuple(names), set(names), iter(names), (name for name in names), dict.fromkeys(names)):
        assert set(enter(model, asked)) == set(names)
    assert set(enter(model, [])) == set()
    everything = {name for name in model.hook_dict if model._switch_off(name) is None}
    assert set(enter(model, None)) == set(enter(model, lambda name: True)) == everything
    model.set_use_split_qkv_input(True)
    both = {"blocks.1.hook_q_input", "blocks.1.attn.hook_q_input"}
    for asked in ("blocks.1.hook_q_input", lambda name: name == "blocks.1.hook_q_input"):
        assert set(enter(model, asked)) == both


NATIVE = {
    "forward": lambda point, note: point.register_forward_hook(lambda module, args, out: note()),
    "forward_pre": lambda point, note: point.register_forward_pre_hook(lambda module, args: note()),
    "full_backward": lambda point, note: point.register_full_backward_hook(lambda module, grads, out: note()),
    "full_backward_pre": lambda point, note: point.register_full_backward_pre_hook(lambda module, grads: note()),
    "TransformerLens's, on the point": lambda point, note: _on_the_point(point, note),
}


class _Handle:
    def __init__(self, point: Any) -> None:
        self.remove = point.remove_hooks


def _on_the_point(point: Any, note: Callable) -> _Handle:
    point.add_hook(lambda act, hook: note())
    return _Handle(point)


def noise(act: torch.Tensor) -> torch.Tensor:
    return 0.5 * torch.randn(act.shape, generator=torch.Generator().manual_seed(1)).to(act)


@pytest.mark.parametrize("kind", NATIVE)
def test_hooks_set_on_the_point_itself(case, kind):
    """Plain PyTorch hooks at every hook point, lazily computed and switched off ones among them."""
    clean = case.model(case.tokens)
    for name, point in case.model.hook_dict.items():
        fired: list[int] = []
        handle = NATIVE[kind](point, lambda fired=fired: fired.append(1))
        out = case.model(case.tokens)
        out.sum().backward()
        handle.remove()
        assert fired == [1], name
        torch.testing.assert_close(out, clean, atol=1e-5, rtol=0)
    for name, point in case.model.hook_dict.items():  # and an edit there is one
        handle = point.register_forward_hook(lambda module, args, out: out + noise(out))
        assert not torch.allclose(case.model(case.tokens), clean, atol=1e-5), name
        handle.remove()
    assert torch.equal(case.model(case.tokens), clean)


def test_hooks_on_modules_fire_on_every_path(model):
    fired: Counter[str] = Counter()
    watched = ("blocks.0", "blocks.0.attn", "blocks.0.ln1", "blocks.0.mlp", "ln_final", "unembed", "embed", "pos_embed")
    for name in watched:
        model.get_submodule(name).register_forward_hook(lambda module, args, out, name=name: fired.update([name]))
    model.register_forward_hook(lambda module, args, out: fired.update(["the model"]))
    model.set_use_split_qkv_input(True)
    model.run_with_hooks(TOKENS, fwd_hooks=[(lambda name: True, lambda act, hook: None)])
    assert fired == dict.fromkeys([*watched, "the model"], 1)


def test_backward_hooks_that_would_be_gone(model):
    with pytest.raises(ValueError, match="removed before a backward pass"):
        model.run_with_hooks(TOKENS, bwd_hooks=[("hook_embed", lambda grad, hook: None)])


def test_backward_hooks_below_frozen_weights(model):
    """A gradient reaches every hook point, whatever part of the model is frozen."""
    parts = (model.embed, model.pos_embed, model.blocks[0], model)
    for frozen in range(1, len(parts) + 1):
        model.requires_grad_(True)
        for part in parts[:frozen]:
            part.requires_grad_(False)
        for name in model.matching_hooks():
            fired: Counter[str] = Counter()
            with model.hooks(bwd_hooks=[(name, lambda grad, hook, fired=fired: fired.update([hook.name]))]):
                forward_and_backward(model)
            assert fired == {name: 1}, frozen
    resid = model(TOKENS, stop_at_layer=1)
    fired = Counter()
    with model.hooks(bwd_hooks=[("blocks.1.attn.hook_z", lambda grad, hook: fired.update([hook.name]))]):
        model(resid, start_at_layer=1).sum().backward()
    assert fired == {"blocks.1.attn.hook_z": 1}


def test_layers_that_are_left_out(model):
    hook = ("blocks.1.hook_resid_post", lambda act, hook: None)
    with pytest.raises(ValueError, match=r"'blocks\.1\.hook_resid_post' did not fire in any forward pass"):
        model.run_with_hooks(TOKENS, fwd_hooks=[hook], stop_at_layer=1)
    with (
        pytest.raises(ValueError, match=r"'blocks\.1\.hook_resid_post' did not fire in"),
        model.hooks(fwd_hooks=[("hook_embed", hook[1]), hook]),
    ):
        model(TOKENS, stop_at_layer=1)
    resid = model(TOKENS, stop_at_layer=1)
    with (
        pytest.raises(ValueError, match=r"'blocks\.0\.attn\.hook_z' did not fire in"),
        model.hooks(bwd_hooks=[("blocks.0.attn.hook_z", hook[1])]),
    ):
        model(resid, start_at_layer=1).sum().backward()
    with (
        pytest.raises(ValueError, match=r"'blocks\.1\.hook_resid_pre' did not fire in"),
        model.hooks(fwd_hooks=[(lambda name: name.startswith("blocks.1"), hook[1])]),
    ):
        model(TOKENS, stop_at_layer=1)
    with model.hooks(fwd_hooks=[hook]):  # layer by layer: one of the passes reaches it
        model(model(TOKENS, stop_at_layer=1), start_at_layer=1)
    with model.hooks(fwd_hooks=[(lambda name: "resid" in name, hook[1])]):
        model(TOKENS, stop_at_layer=1)
    with model.hooks(fwd_hooks=[hook]):  # no pass at all
        pass
    with pytest.raises(RuntimeError, match="from inside"), model.hooks(fwd_hooks=[hook]):
        model(TOKENS, stop_at_layer=1)
        raise RuntimeError("from inside")
    with pytest.raises(ValueError, match=r"'blocks\.1\.hook_resid_post' did not fire in any forward pass"):
        model.run_with_cache(TOKENS, names_filter=["hook_embed", hook[0]], stop_at_layer=1)
    with pytest.raises(ValueError, match=r"'blocks\.1\.hook_resid_pre' did not fire"):
        model.run_with_cache(TOKENS, names_filter=lambda name: name.startswith("blocks.1"), stop_at_layer=1)
    _, cache = model.run_with_cache(TOKENS, stop_at_layer=1)  # what fires, and it is not named
    assert set(cache) == {n for n in model.matching_hooks() if n.startswith(("blocks.0", "hook_"))}
    assert not any(point._forward_hooks for point in model.hook_points())
