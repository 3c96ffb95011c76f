"""What the recurrent nets share: torch's fused recurrence, and the hook points that it hides.

1. The fused kernel runs over all positions. If nobody listens to gates or carry, that is all.
2. hook_carry fires once, on the carries of that run, [batch, pos, d_carry]. What a hook sets there goes on into every
   later position (propagation.py): by one more fused call from the edited position on.
3. The gates of the run are computed at all positions at once, from the shifted carries, and each gate's hook point
   fires once, [batch, pos, d_hidden]. If one is edited, a loop over positions takes what was set for what it computes.
4. hook_state fires on what is read out, [batch, pos, d_hidden]; an edit there changes that position's read-out alone.

So edits at several hook points compose as one recurrence: from position to position, edited elements of the gates
replace those computed, the new carry follows, and edited elements of the carry replace it. Watching gates beside an
edited carry shows the gates of the edited run; the whole run's result is at hook_state.

While a gradient flows, a live carry or gate takes the loop even if nothing is edited: the gradient at the hook point is
then the whole effect of the value, through every later position. HookPoints never fire once a time step.
"""

from __future__ import annotations

import math
from collections.abc import Callable

import torch
import torch.nn.functional as F
from torch import Tensor, nn
from transformer_lens.hook_points import HookPoint

from interp.models.hooks import live
from interp.models.propagation import Edit, ask, propagate
from interp.models.state_configs import RecurrentConfig
from interp.models.state_model import Mixer

Replace = Callable[[str, Tensor], Tensor]  # a gate's name and computed value to the value in use


class RecurrentLayer(Mixer):
    """One recurrent layer. Its weights are kept by gate, `W_i{gate}` [d_hidden, d_model], `W_h{gate}` [d_hidden,
    d_hidden], `b_{gate}`, and put together for the kernel at each forward, so that an optimizer for matrices sees maps
    and not stacks of them. With d_hidden other than d_model, `W_O` [d_model, d_hidden] maps the read-out.
    """

    carriers = ("hook_carry",)
    blocks: tuple[str, ...]  # gates that have weights, in the order of torch's stacked matrices
    gates: tuple[str, ...] = ()  # names of their hook points, without `hook_`

    def __init__(self, cfg: RecurrentConfig) -> None:
        super().__init__()
        self.d_hidden, self.d_carry = cfg.d_hidden, cfg.d_carry
        for block in self.blocks:
            self.register_parameter(f"W_i{block}", nn.Parameter(torch.empty(cfg.d_hidden, cfg.d_model)))
            self.register_parameter(f"W_h{block}", nn.Parameter(torch.empty(cfg.d_hidden, cfg.d_hidden)))
            self.register_parameter(f"b_{block}", nn.Parameter(torch.empty(cfg.d_hidden)))
        self.W_O = None
        if cfg.d_hidden != cfg.d_model:
            self.W_O = nn.Parameter(torch.empty(cfg.d_model, cfg.d_hidden))
        self.hook_carry = HookPoint()  # [batch, pos, d_carry]
        for gate in self.gates:
            self.add_module(f"hook_{gate}", HookPoint())  # [batch, pos, d_hidden]
        self.hook_state = HookPoint()  # [batch, pos, d_hidden]

    @property
    def matrices(self) -> tuple[str, ...]:  # type: ignore[override]
        """Names of the weights that are one linear map each."""
        return tuple(name for name, parameter in self.named_parameters() if parameter.ndim == 2)

    def reset_parameters(self, generator: torch.Generator, *, n_layers: int) -> None:
        """Uniform in ±1 / sqrt(d_hidden) as torch's modules, W_O divided by sqrt(2 * n_layers), biases 0."""
        bound = 1 / math.sqrt(self.d_hidden)
        for name, parameter in self.named_parameters():
            if parameter.ndim == 2:
                parameter.uniform_(-bound, bound, generator=generator)
            else:
                parameter.zero_()
            if name == "W_O":
                parameter /= math.sqrt(2 * n_layers)

    def forward(self, x: Tensor, past: dict[str, Tensor]) -> Tensor:
        """See Mixer. Recurrences run in float32 at least, under autocast too."""
        dtype = self.hidden_matrix().dtype
        x = x.to(torch.promote_types(dtype, torch.float32))
        with torch.autocast(x.device.type, enabled=False):
            before = past.get("carry")
            if before is None:
                before = x.new_zeros(len(x), self.d_carry)
            if live(self.hook_carry, *self._gate_points().values()):
                carry = self._hooked(x, before)
                state, past["carry"] = carry[..., : self.d_hidden], carry[:, -1]
            else:
                state, past["carry"] = self.fused(x, before)
            state = self.hook_state(state.clone() if live(self.hook_state) else state)
            state = state.to(dtype)
            return state if self.W_O is None else F.linear(state, self.W_O)

    def _gate_points(self) -> dict[str, HookPoint]:
        return {gate: getattr(self, f"hook_{gate}") for gate in self.gates}

    def _hooked(self, x: Tensor, before: Tensor) -> Tensor:
        """The carries [batch, pos, d_carry] with what hooks made of them."""
        listening = {gate: point for gate, point in self._gate_points().items() if live(point)}
        carry, found = self.trace(x, before, gates=bool(listening))
        edit = None
        if live(self.hook_carry):
            edit = ask(self.hook_carry, carry)
            if edit.in_graph:
                carry = self._loop(x, before, edit, {})
            elif not edit.empty:
                carry = propagate(lambda rows, pos, state: self.trace(x[rows[:, None], pos], state)[0], edit)
            if listening and carry is not edit.given:
                found = self._gates(x, before, carry)
        edits = {gate: ask(point, found[gate]) for gate, point in listening.items()}
        if any(each.in_graph or not each.empty for each in edits.values()):
            carry = self._loop(x, before, edit, edits)
        return carry

    def _gates(self, x: Tensor, before: Tensor, carry: Tensor) -> dict[str, Tensor]:
        """The gates of a run, by name, from its carries: all positions at once."""
        found: dict[str, Tensor] = {}
        shifted = torch.cat([before[:, None], carry[:, :-1]], dim=1)
        self.step(self.project(x), shifted, self.recurrent_weights(), lambda name, v: found.setdefault(name, v))
        return found

    def _loop(self, x: Tensor, before: Tensor, carry_edit: Edit | None, gate_edits: dict[str, Edit]) -> Tensor:
        weights = self.recurrent_weights()
        set_gates = {gate: edit.steps() for gate, edit in gate_edits.items()}
        set_carry = None if carry_edit is None else carry_edit.steps()
        carry, carries = before, []
        for pos, inputs in enumerate(self.project(x).unbind(1)):

            def replace(name: str, value: Tensor, pos: int = pos) -> Tensor:
                return set_gates[name][pos](value) if name in set_gates else value

            carry = self.step(inputs, carry, weights, replace)
            if set_carry is not None:
                carry = set_carry[pos](carry)
            carries.append(carry)
        return torch.stack(carries, dim=1)

    def stacked(self, kind: str) -> Tensor:
        """The parameters `{kind}{gate}` of all gates one under the other, [n_gates * d_hidden, …]."""
        return self.raised(torch.cat([getattr(self, f"{kind}{block}") for block in self.blocks]))

    @staticmethod
    def raised(weight: Tensor) -> Tensor:
        """A weight in the dtype of the recurrence: half precision to float32."""
        return weight.to(torch.promote_types(weight.dtype, torch.float32))

    def hidden_matrix(self) -> nn.Parameter:
        """One of the weights, for its dtype."""
        return getattr(self, f"W_h{self.blocks[0]}")

    def recurrent_bias(self) -> Tensor:
        """Added to the product with the state, [n_gates * d_hidden]."""
        return self.raised(self.hidden_matrix().new_zeros(len(self.blocks) * self.d_hidden))

    def recurrent_weights(self) -> tuple[Tensor, Tensor]:
        """What `step` multiplies the state with and adds, stacked once for a whole loop."""
        return self.stacked("W_h"), self.recurrent_bias()

    def flat_weights(self) -> list[Tensor]:
        """The weights as torch's kernels take them."""
        return [self.stacked("W_i"), self.stacked("W_h"), self.stacked("b_"), self.recurrent_bias()]

    def project(self, x: Tensor) -> Tensor:
        """What the inputs add to the gates, [batch, pos, n_gates * d_hidden]."""
        return F.linear(x, self.stacked("W_i"), self.stacked("b_"))

    def trace(self, x: Tensor, before: Tensor, *, gates: bool = False) -> tuple[Tensor, dict[str, Tensor]]:
        """The carries after each position, [batch, pos, d_carry], of a run from the carry `before` [batch, d_carry].

        And, if asked for, its gates by name, each [batch, pos, d_hidden].
        """
        carry, _ = self.fused(x, before)
        return carry, self._gates(x, before, carry) if gates else {}

    def fused(self, x: Tensor, before: Tensor) -> tuple[Tensor, Tensor]:
        """torch's kernel: what is read out [batch, pos, d_hidden], and the last carry [batch, d_carry]."""
        raise NotImplementedError

    def step(self, inputs: Tensor, carry: Tensor, weights: tuple[Tensor, Tensor], replace: Replace) -> Tensor:
        """The next carry [..., d_carry] from one, and from `project`ed inputs [..., n_gates * d_hidden]."""
        raise NotImplementedError
