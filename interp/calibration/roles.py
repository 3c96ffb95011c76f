"""Explanation sentences: do they name what each head does?

For each instruction `head_roles` describes every head. Heads that the instruction uses (true nodes under mean ablation,
of which the machine's variable is declared and can be set) are right where the sentence names that variable, and, in
rows of their own, where it says that they look at the declared positions. Heads that it does not use are false
positives where a variable is named for them.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

from interp.calibration.edges import truth
from interp.calibration.settings import CalibrationSettings
from interp.circuits.roles import head_roles
from interp.compiled.components import Head
from interp.compiled.config import NoiseConfig
from interp.compiled.form import Form
from interp.compiled.key import AnswerKey
from interp.compiled.noise import apply_noise
from interp.compiled.program import interpreter
from interp.results import Aggregation, Method, Metric
from interp.tasks.machine_task import NextStateTask

Rows = list[dict[str, Any]]
Report = Callable[[float], None]
_N_ROLES = 12  # an interval over programs needs ten


def role_calibration(
    model: Any, key: AnswerKey, task: NextStateTask, settings: CalibrationSettings, report: Report
) -> Rows:
    """Share of true heads whose variable (`stratum` "variable") and positions ("attention") are named, by op."""
    heads = declared_heads(task, key)
    rows: Rows = []
    ops = settings.opcodes()
    for done, op in enumerate(ops):
        used = truth(key, task, op, settings, "mean").nodes
        roles = {
            role.node: role
            for role in head_roles(model, task, op.name, n=max(_N_ROLES, settings.n_pairs), seed=settings.seed)
        }
        mine = [node for node, head in heads.items() if node in used and nameable(task, head)]
        idle = [node for node in roles if node not in used]
        named = [roles[node].variable == heads[node].variable for node in mine]
        looks = [looks_at(heads[node].keys, roles[node].to_block) for node in mine]
        wrong = [roles[node].variable is not None for node in idle]
        for stratum, metric, values in (
            ("variable", Metric.RECALL, named),
            ("attention", Metric.RECALL, looks),
            ("variable", Metric.FALSE_POSITIVE_RATE, wrong),
        ):
            if values:
                rows.append(
                    {
                        "op": op.name,
                        "method": Method.HEAD_ROLE,
                        "stratum": stratum,
                        "granularity": "head",
                        "metric": metric,
                        "aggregation": Aggregation.MEAN,
                        "estimate": sum(values) / len(values),
                        "n": len(values),
                    }
                )
        report((done + 1) / len(ops))
    return rows


def declared_heads(task: NextStateTask, key: AnswerKey) -> dict[str, Head]:
    """The heads of the compiled program by node, distractors left out."""
    program = apply_noise(interpreter(Form(task.spec, key.task)), NoiseConfig(**key.noise))
    return {program.node(head): head for head in program.heads if not head.name.startswith("distractor")}


def nameable(task: NextStateTask, head: Head) -> bool:
    """Whether the head carries a variable that an interchange can set."""
    return head.variable is not None and task.world.variable(head.variable).settable


def looks_at(keys: str, found: str) -> bool:
    """Whether the positions that a sentence names are declared: one of the set's parts, a pointed slot of a part that
    is a block, or the whole block of a part that is a slot."""
    parts = keys.split("+")
    block = found.split("[")[0]
    return found in parts or ("[@" in found and block in parts) or found in {part.split("[")[0] for part in parts}
