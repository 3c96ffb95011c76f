"""What every model with a state must do: carry edits onward, decode from a cached state, give whole gradients."""

import copy
from contextlib import nullcontext
from dataclasses import replace

import pytest
import torch
import torch.nn.functional as F

from interp.models.decoding import greedy_decode
from interp.models.resizing import resize
from tests.models.state_cases import BATCH, N_POS, STATE_CASES, build, some_tokens

# weights with two axes that are no linear map: one number a channel, for each tap or each slot of its state
VECTORS = ("conv.weight", "A_log")


@pytest.fixture(params=STATE_CASES)
def cfg(request):
    return STATE_CASES[request.param]


@pytest.fixture
def model(cfg):
    return build(cfg)


@pytest.fixture
def exact(cfg):
    """The model in float64, where what is exact is exact to 1e-9."""
    return build(replace(cfg, dtype="float64"))


def patch_at(sources: dict[str, torch.Tensor], at: torch.Tensor):
    """Hooks that put, in each row, a source's carriers at position `at` into the run."""
    rows = torch.arange(len(at))

    def put(act, hook):
        act[rows, at] = sources[hook.name][rows, at].to(act)
        return act

    return [(name, put) for name in sources]


@pytest.mark.parametrize("grad", [False, True])
def test_the_carrier_of_a_source_carries_all_of_its_past(exact, grad):
    """Put into base at t, it gives at later positions what source[<= t] followed by base[> t] gives, in one forward."""
    base, source = some_tokens(1), some_tokens(2)
    at = torch.tensor([0, 3, N_POS - 2])  # another position in every row
    with torch.no_grad():
        _, cache = exact.run_with_cache(source, names_filter=list(exact.carrier_hooks()))
        later = torch.arange(N_POS) > at[:, None]
        expected = exact(torch.where(later, base, source))
    with torch.set_grad_enabled(grad):
        patched = exact.run_with_hooks(base, fwd_hooks=patch_at(cache, at))
        clean = exact(base)
    torch.testing.assert_close(patched[later], expected[later], atol=1e-9, rtol=0)
    before = torch.arange(N_POS) < at[:, None]
    torch.testing.assert_close(patched[before], clean[before], atol=1e-9, rtol=0)
    assert (patched - clean)[later].abs().max() > 1e-2


def test_edits_at_two_positions_are_set_in_turn(exact):
    """The last edit of the whole carrier is what counts after it; between the two the first one does."""
    base, first, second = some_tokens(1), some_tokens(2), some_tokens(3)
    names = list(exact.carrier_hooks())
    with torch.no_grad():
        caches = [exact.run_with_cache(tokens, names_filter=names)[1] for tokens in (first, second)]
        hooks = [
            hook for cache, at in zip(caches, (2, 5), strict=True) for hook in patch_at(cache, torch.full((BATCH,), at))
        ]
        patched = exact.run_with_hooks(base, fwd_hooks=hooks)
        for tokens, start, stop in ((first, 2, 5), (second, 5, N_POS)):
            expected = exact(torch.cat([tokens[:, : start + 1], base[:, start + 1 :]], dim=1))
            torch.testing.assert_close(patched[:, start + 1 : stop], expected[:, start + 1 : stop], atol=1e-9, rtol=0)


def test_edits_at_two_layers_are_made_from_the_lowest_up(exact):
    """With layer 0 set at 2 and then layer 1 at 2: as the run of the first edit in which only the second is made."""
    base, source = some_tokens(1), some_tokens(2)
    hooks = [name for name in exact.carrier_hooks() if name.endswith(("hook_carry", "hook_ssm_state"))]
    at = torch.full((BATCH,), 2)
    with torch.no_grad():
        _, cache = exact.run_with_cache(source, names_filter=hooks)
        lower, upper = ([hook for hook in patch_at(cache, at) if hook[0] == name] for name in hooks)
        both = exact.run_with_hooks(base, fwd_hooks=[*upper, *lower])
        with exact.hooks(fwd_hooks=lower):
            stream = exact(base, stop_at_layer=1)
        with exact.hooks(fwd_hooks=upper):
            expected = exact(stream, start_at_layer=1)
    torch.testing.assert_close(both, expected, atol=1e-9, rtol=0)
    assert (both - exact(base)).abs().max() > 1e-4


@pytest.mark.parametrize("whole", [True, False])
def test_edits_with_and_without_gradients_agree(exact, whole):
    """Further calls from the edited positions on, and the path that gradients take."""
    base = some_tokens(1)
    name = exact.carrier_hooks()[0]

    def edit(act, hook):
        noise = torch.randn(act.shape, generator=torch.Generator().manual_seed(5)).to(act)
        if whole:
            return act + noise
        keep = torch.rand(act.shape, generator=torch.Generator().manual_seed(6)) < 0.9
        return torch.where(keep.to(act.device), act, act + noise)

    results = []
    for grad in (False, True):
        with torch.set_grad_enabled(grad):
            results.append(exact.run_with_hooks(base, fwd_hooks=[(name, edit)]))
    torch.testing.assert_close(results[0], results[1], atol=1e-9, rtol=0)


@pytest.mark.parametrize("steps", [1, 4])
def test_decoding_from_a_cached_state_equals_the_parallel_form(exact, steps):
    tokens = some_tokens(4)
    cache = exact.new_cache(BATCH)
    with torch.no_grad():
        whole = exact(tokens)
        parts = [exact(part, past_kv_cache=cache) for part in tokens.split(steps, dim=1)]
    torch.testing.assert_close(torch.cat(parts, dim=1), whole, atol=1e-9, rtol=0)
    assert cache.length == N_POS


def test_a_cache_goes_on_from_an_edited_state(exact):
    base, source = some_tokens(1), some_tokens(2)
    names = list(exact.carrier_hooks())
    with torch.no_grad():
        _, carriers = exact.run_with_cache(source[:, :4], names_filter=names)
        cache, other = exact.new_cache(BATCH), exact.new_cache(BATCH)
        with exact.hooks(fwd_hooks=patch_at(carriers, torch.full((BATCH,), 3))):
            exact(base[:, :4], past_kv_cache=cache)
        exact(source[:, :4], past_kv_cache=other)
        kept = cache.copy()
        kept.keep(torch.tensor([2, 0]))
        after = exact(base[:, 4:], past_kv_cache=cache)
        torch.testing.assert_close(after, exact(base[:, 4:], past_kv_cache=other), atol=1e-9, rtol=0)
        torch.testing.assert_close(exact(base[[2, 0], 4:], past_kv_cache=kept), after[[2, 0]], atol=1e-9, rtol=0)
    with pytest.raises(ValueError, match="past_kv_cache was made for a batch of 2; got 3 rows"):
        exact(base, past_kv_cache=kept)
    with pytest.raises(ValueError, match="past_kv_cache goes through every layer"):
        exact(base, past_kv_cache=cache, stop_at_layer=1)


def test_written_on_with_and_without_a_cache(exact):
    prompt = some_tokens(5, n_pos=3)
    written = greedy_decode(exact, prompt, 8)
    assert torch.equal(greedy_decode(exact, prompt, 8, use_kv_cache=False), written)
    assert len(written.unique()) > 1
    cache = exact.new_cache(BATCH)
    exact(prompt, past_kv_cache=cache)
    size = cache.size()
    exact(prompt, past_kv_cache=cache)
    assert cache.size() == size  # a state does not grow with what was read


def test_the_gradient_at_a_carrier_is_its_whole_effect(cfg):
    """By a forward hook and by a backward hook: the slope of the loss in an edit that propagates."""
    model = build(replace(cfg, dtype="float64"))
    tokens = some_tokens(1)

    def loss(logits):
        return F.cross_entropy(logits.flatten(0, 1), tokens.flatten())

    for name in model.carrier_hooks():
        seen, back = {}, {}

        def see(act, hook, seen=seen):
            seen[hook.name] = act

        def see_back(grad, hook, back=back):
            back[hook.name] = grad

        with model.hooks(fwd_hooks=[(name, see)]):
            gradient = torch.autograd.grad(loss(model(tokens)), seen[name])[0]
        with model.hooks(bwd_hooks=[(name, see_back)]):
            loss(model(tokens)).backward()
        torch.testing.assert_close(back[name], gradient)
        direction = torch.randn(gradient[:, 3].shape, generator=torch.Generator().manual_seed(0)).to(gradient)

        def nudge(act, hook, size, direction=direction):
            act[:, 3] += size * direction
            return act

        with torch.no_grad():
            high, low = (
                loss(model.run_with_hooks(tokens, fwd_hooks=[(name, lambda a, hook, s=s: nudge(a, hook, s))]))
                for s in (1e-4, -1e-4)
            )
        slope = ((high - low) / 2e-4).item()
        assert (gradient[:, 3] * direction).sum().item() == pytest.approx(slope, rel=1e-5, abs=1e-9), name


def test_gradients_are_those_of_finite_differences(cfg):
    model = build(replace(cfg, dtype="float64"))
    tokens = some_tokens(1)
    parameters = dict(model.named_parameters())

    def loss():
        return F.cross_entropy(model(tokens).flatten(0, 1), tokens.flatten())

    loss().backward()
    generator = torch.Generator().manual_seed(0)
    for name, parameter in parameters.items():
        assert parameter.grad is not None, name
        direction = torch.randn(parameter.shape, generator=generator, dtype=torch.float64)
        found = (parameter.grad * direction).sum().item()
        with torch.no_grad():
            parameter += 1e-5 * direction
            high = loss()
            parameter -= 2e-5 * direction
            low = loss()
            parameter += 1e-5 * direction
        assert found == pytest.approx(((high - low) / 2e-5).item(), rel=1e-5, abs=1e-8), name


def test_hidden_matrices_are_single_maps_inside_the_blocks(model):
    names = {id(parameter): name for name, parameter in model.named_parameters()}
    found = {names[id(parameter)]: parameter for parameter in model.hidden_matrices()}
    assert all(name.startswith("blocks.") for name in found)
    rest = {name for name, p in model.named_parameters() if name.startswith("blocks.") and p.ndim > 1} - set(found)
    assert all(name.endswith(VECTORS) for name in rest)
    assert not any(name.endswith(VECTORS) for name in found)
    if model.mixer_name == "rnn":  # a matrix a gate, not one for all gates
        sizes = {model.cfg.d_model, model.cfg.d_hidden, model.cfg.d_mlp}
        assert all(set(parameter.shape) <= sizes for parameter in found.values())


def test_attention_is_refused_in_a_sentence(model):
    with pytest.raises(ValueError, match="has no attention, it holds a state, at blocks.0"):
        model.run_with_cache(some_tokens(), names_filter="blocks.0.attn.hook_pattern")
    assert model.attention_hooks() == ()


def test_a_hook_that_returns_another_shape_is_refused(model):
    with pytest.raises(ValueError, match=r"must return \[3, 9, .*as it was given; got"):
        model.run_with_hooks(some_tokens(), fwd_hooks=[(model.carrier_hooks()[0], lambda act, hook: act[:, :2])])


def test_no_sequence_is_too_long(model):
    with torch.no_grad():
        assert model(some_tokens(n_pos=5 * N_POS)).shape[1] == 5 * N_POS
    assert model.longest is None


def test_resized_to_longer_sequences_it_is_the_same_model(model):
    longer = resize(model, replace(model.cfg, n_ctx=5 * N_POS))
    assert longer.cfg.n_ctx == 5 * N_POS
    with torch.no_grad():
        assert torch.equal(longer(some_tokens()), model(some_tokens()))


@pytest.mark.parametrize("watched", [False, True])
def test_recurrences_keep_their_precision_under_autocast(model, watched):
    tokens = some_tokens(1)
    hooks = [(name, lambda act, hook: None) for name in model.carrier_hooks()] if watched else []
    with model.hooks(fwd_hooks=hooks) if hooks else nullcontext():
        with torch.autocast("cpu", torch.bfloat16):
            logits = model(tokens)
        F.cross_entropy(logits.float().flatten(0, 1), tokens.flatten()).backward()
        clean = model(tokens)
    assert (logits - clean).norm() / clean.norm() < 0.05


@pytest.mark.parametrize(("dtype", "near"), [(torch.float64, 1e-4), (torch.float16, 0.03), (torch.bfloat16, 0.15)])
@torch.no_grad()
def test_moved_to_another_dtype_it_computes_the_same(model, dtype, near):
    """In the parallel form, watched, and from a cached state; recurrences keep float32."""
    expected, tokens = model(some_tokens(1)), some_tokens(1)
    moved = copy.deepcopy(model).to(dtype)
    watched, acts = moved.run_with_cache(tokens)
    cache = moved.new_cache(BATCH)
    pieces = torch.cat([moved(part, past_kv_cache=cache) for part in tokens.split(4, dim=1)], dim=1)
    for logits in (moved(tokens), watched, pieces):
        assert logits.dtype == dtype
        assert (logits.double() - expected.double()).norm() / expected.double().norm() < near
    assert {acts[name].dtype for name in moved.carrier_hooks()} == {torch.promote_types(dtype, torch.float32)}
    cache = moved.new_cache(BATCH)  # moved between two pieces
    first = moved(tokens[:, :4], past_kv_cache=cache)
    second = moved.to(model.dtype)(tokens[:, 4:], past_kv_cache=cache)
    logits = torch.cat([first.to(model.dtype), second], dim=1)
    assert (logits - expected).norm() / expected.norm() < near
