"""From a machine to a compiled model, its answer key, and a run folder like any other."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import asdict, dataclass
from pathlib import Path

from cython_vm import MachineSpec
from interp.compiled.assembler import assemble, required_sizes
from interp.compiled.components import Program
from interp.compiled.config import KEY_FILE, NoiseConfig
from interp.compiled.form import Form
from interp.compiled.key import AnswerKey
from interp.compiled.locate import locate
from interp.compiled.noise import apply_noise, directions
from interp.compiled.program import interpreter
from interp.compiled.truth import circuit_keys
from interp.models import Transformer, TransformerConfig
from interp.runs import Run, RunConfig, RunError, load, save_weights, write_config
from interp.training import TrainingConfig

CLEAN = NoiseConfig()


@dataclass(frozen=True, eq=False)
class Compiled:
    """A model whose mechanism is known."""

    form: Form
    program: Program
    model: Transformer
    key: AnswerKey


def compile_model(
    spec: MachineSpec,
    *,
    task: str = "step_inplace",
    noise: NoiseConfig = CLEAN,
    sharpness: float = 12.0,
    gain: float = 10.0,
    d_model: int | None = None,
    n_heads: int | None = None,
    d_head: int | None = None,
    d_mlp: int | None = None,
    n_circuit_pairs: int = 0,
    progress: Callable[[float], None] | None = None,
) -> Compiled:
    """Write the weights of a transformer that takes one step of the machine, exactly.

    Args:
        spec: the machine.
        task: step_inplace (bidirectional) or step (causal).
        noise: what is added that does not matter.
        sharpness: by how many nats the key attended to outscores every other.
        gain: by how much the right token's logit exceeds the others.
        d_model: by default, as this and the next three, the least that holds the program.
        n_heads: a layer.
        d_head: of each head.
        d_mlp: neurons a layer.
        n_circuit_pairs: pairs for each op, and each op x outcome, that the key of its circuits is derived on; 0 leaves
            circuits out.
        progress: called with the share of the circuits done, 0 to 1.

    Raises:
        ValueError: a dimension is short, which one, and what it takes; or noise that this program cannot have.
    """
    form = Form(spec, task)
    program = apply_noise(interpreter(form, sharpness=sharpness, gain=gain), noise)
    table = directions(program, noise, d_model=d_model)
    sizes = required_sizes(program)
    cfg = TransformerConfig(
        d_vocab=spec.d_vocab,
        n_ctx=form.task.n_ctx,
        n_layers=program.n_layers,
        d_model=table.shape[1],
        act_fn="relu",
        normalization_type=None,
        attention_dir=form.task.attention_dir,
        seed=noise.seed,
        n_heads=n_heads or sizes["n_heads"],
        d_head=d_head or sizes["d_head"],
        d_mlp=d_mlp or sizes["d_mlp"],
    )
    model = assemble(program, cfg, table)
    model.vocab = form.task.vocab
    circuits = []
    if n_circuit_pairs:
        circuits = circuit_keys(form, noise, n_pairs=n_circuit_pairs, sharpness=sharpness, progress=progress)
    variables = locate(program, form)
    key = AnswerKey(
        task=task,
        n_layers=program.n_layers,
        spaces=program.spaces,
        directions=table.float(),
        components=_components(program),
        variables=variables,
        circuits=tuple(circuits),
        noise=asdict(noise),
        sharpness=sharpness,
    )
    return Compiled(form, program, model, key)


def _components(program: Program) -> dict[str, str]:
    """What each node does, in words."""
    heads = {program.node(head): head.role for head in program.heads if not head.name.startswith("distractor")}
    mlps = {
        "m0": "turns depth into the level of every bracket",
        "m1": "decides outcome and branch, and marks the cell and the output slot that the step can write",
        "m2": "writes the next token of every slot",
    }
    return {"input": "tokens, and the address of every position", **dict(sorted(heads.items())), **mlps}


def require_place(out: Path, *, fresh: bool) -> None:
    """Refuse a folder that holds a run already, unless it is a compiled one and `fresh` is set. Raises RunError."""
    if (out / "config.json").exists():
        if not (out / KEY_FILE).exists():
            raise RunError(f"{out} holds a trained run; give another --out")
        if not fresh:
            raise RunError(f"{out} holds a compiled run already; --fresh replaces it, with what was measured on it")


def compile_run(compiled: Compiled, out: Path, *, fresh: bool = False, command: str | None = None) -> Run:
    """Write a compiled model and its key as the run folder `out`.

    Raises:
        RunError: the folder holds a run already, and `fresh` is not set; or one that was trained.
    """
    require_place(out, fresh=fresh)
    if (out / "config.json").exists():
        for frame in [*out.glob("*.parquet"), *out.glob("circuits/*.json"), *out.glob("report.html")]:
            frame.unlink()
    out.mkdir(parents=True, exist_ok=True)
    seed = compiled.model.cfg.seed
    config = RunConfig(compiled.form.task_name, compiled.form.spec, compiled.model.cfg, TrainingConfig(seed=seed))
    save_weights(out / "model.safetensors", compiled.model, config, step=0)
    compiled.key.save(out)
    write_config(out, config, command=command)
    return load(out)
