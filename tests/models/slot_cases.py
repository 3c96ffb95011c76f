"""Cases of the slot machine in the model battery: soft, so that every edit is felt; hard ones have their own tests."""

from typing import Any

from interp.models.slot_machine_config import SlotMachineConfig

_SIZES: dict[str, Any] = {
    "d_vocab": 13, "n_ctx": 9, "n_layers": 2, "n_heads": 2, "d_model": 16, "seed": 3,
    "n_slots": 5, "base": 3, "n_values": 9, "max_steps": 3, "execution": "soft",
}  # fmt: skip

SLOT_CASES: dict[str, SlotMachineConfig] = {
    "slot-machine": SlotMachineConfig(**_SIZES),
    "slot-machine-learned": SlotMachineConfig(
        **_SIZES, alu="learned", d_alu=6, temperature=0.8, dtype="float64", pointer_reach=1
    ),
}
