"""Hook points behind switches, because what they hold costs memory."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any


class Switches:
    """For models of attention and MLPs: each head's result, and a copy of the stream for each reader."""

    switches = {  # noqa: RUF012  # a constant of the class
        "hook_result": "use_attn_result",
        "hook_attn_in": "use_attn_in",
        "hook_q_input": "use_split_qkv_input",
        "hook_k_input": "use_split_qkv_input",
        "hook_v_input": "use_split_qkv_input",
        "hook_mlp_in": "use_hook_mlp_in",
    }

    if TYPE_CHECKING:
        cfg: Any

        def _set_state(self, name: str, value: Any) -> None: ...

    def set_use_attn_result(self, use_attn_result: bool) -> None:
        """Switch `attn.hook_result` on or off in every block."""
        self._switch("use_attn_result", use_attn_result)

    def set_use_split_qkv_input(self, use_split_qkv_input: bool) -> None:
        """Switch `hook_q_input`, `hook_k_input` and `hook_v_input` on or off; excludes use_attn_in."""
        self._switch("use_split_qkv_input", use_split_qkv_input, excludes="use_attn_in")

    def set_use_attn_in(self, use_attn_in: bool) -> None:
        """Switch `hook_attn_in`, one input a head for query, key and value together; excludes use_split_qkv_input."""
        self._switch("use_attn_in", use_attn_in, excludes="use_split_qkv_input")

    def set_use_hook_mlp_in(self, use_hook_mlp_in: bool) -> None:
        """Switch `hook_mlp_in` on or off."""
        self._switch("use_hook_mlp_in", use_hook_mlp_in)

    def _switch(self, name: str, value: bool, *, excludes: str | None = None) -> None:
        if value and excludes is not None and getattr(self.cfg, excludes):
            raise ValueError(f"{name} and {excludes} exclude each other; call set_{excludes}(False) first")
        self._set_state(name, bool(value))
