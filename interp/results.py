"""The tidy frame: every number that the project measures is one row of one table.

A row names what was measured (`metric`) of what (`world`, `task`, `op`, `site`, `position`, `variable`), how
(`method`, `map`, `ablation`, `granularity`, `pair_design`, `stratum`, `rank`, `circuit_size`, and of integrated
gradients how many `steps`), and with what certainty (`estimate`, `ci_low`, `ci_high`, `interval_kind`, `n`). `op` holds
the world's stratum; `time` is an executed, loop or denoising step, `lag` the steps from an edit to the answer that is
judged, `part` a part of what a model carries from position to position, `part_size` and `carrier_size` the floats of it
and of all that is carried. A control is a row of its own that differs from the row it controls in `control` alone.
Columns that do not apply are absent (null), never zero.
"""

from __future__ import annotations

import json
import re
from collections.abc import Iterable, Mapping
from enum import StrEnum
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np

from interp.files import atomic_path
from interp.reading import read_parquet, reading

if TYPE_CHECKING:  # the names of metrics and methods are asked for before any frame is: these take half a second
    import pandas as pd
    import pyarrow as pa


class Method(StrEnum):
    """How a number was obtained."""

    TRAINING = "training"  # a scalar logged by the training loop
    GREEDY = "greedy"  # the model's own greedy answer, compared with the machine
    LOGISTIC = "logistic"  # multinomial logistic probe
    LOGISTIC_PATH = "logistic_path"  # the same with its penalty chosen on a validation part of the fit
    RIDGE = "ridge"  # closed-form one-hot regression probe
    MEAN_DIFFERENCE = "mean_difference"  # nearest class mean along the mean-difference directions
    MLP = "mlp"  # probe with one hidden layer
    FULL_VECTOR = "full_vector"  # interchange of the whole activation vector at a site
    PROBE_SUBSPACE = "probe_subspace"  # interchange inside the row space of the variable's probe
    TRUE_SUBSPACE = "true_subspace"  # interchange inside the subspaces that a compiled model's answer key names
    PROBE_MEAN = "probe_mean"  # what a probe reads replaced by the mean of another class
    PROBE_SHIFT = "probe_shift"  # the difference of two class means added inside what a probe reads
    PROBE_LOGITS = "probe_logits"  # the smallest change that exchanges two of a probe's logits
    DAS = "das"  # interchange inside a subspace that is fitted for it (distributed alignment search)
    POSITION_SEARCH = "position_search"  # interchange of whole vectors at the smallest set of positions that was found
    EAP = "eap"  # edge attribution patching, gradient at the clean run
    EAP_IG = "eap_ig"  # edge attribution patching, gradients integrated over the inputs
    ATTRIBUTION_PATCHING = "attribution_patching"  # a node's patch estimated by the gradient at what it writes
    ACDC = "acdc"  # greedy search from the output backwards, an edge dropped where the metric barely changes
    EXACT_PATCHING = "exact_patching"  # the edge really patched, the effect measured
    ACTIVATION_PATCHING = "activation_patching"  # an activation replaced by that of another run
    PATH_PATCHING = "path_patching"  # a corrupted value sent along named paths alone, the effect measured
    ABLATION = "ablation"  # an activation replaced by zero, a mean or a resample
    CIRCUIT_RUN = "circuit_run"  # a circuit run alone, all other edges ablated
    EXACT_CONDITIONAL = "exact_conditional"  # against the rule's distribution of each character, summed, not sampled
    LIKELIHOOD = "likelihood"  # what a model says of a text, token by token, the true ones before each
    BOUND = "bound"  # an upper bound on that, of a model that fills in rather than writes on
    SAMPLED_TEXT = "sampled_text"  # texts that were sampled, or brought, and judged by the rule
    HEAD_ROLE = "head_role"  # a sentence generated from measurements of a head


class Control(StrEnum):
    """What a row is held against; absent on the measured row itself."""

    MAJORITY_CLASS = "majority_class"  # always answer the commonest class of the fit split
    CONTROL_TASK = "control_task"  # labels re-drawn per input type (Hewitt & Liang 2019)
    SHUFFLED_LABELS = "shuffled_labels"  # labels permuted between examples
    EMBEDDING_ONLY = "embedding_only"  # the same probe on the embedding at that position
    UNTRAINED_MODEL = "untrained_model"  # the same measurement on an untrained copy of the model
    RANDOM_SUBSPACE = "random_subspace"  # a random subspace of the same rank
    ALTERED_SEMANTICS = "altered_semantics"  # the run under permuted meanings of the opcodes (Jin & Rinard 2024)
    WRONG_TIME = "wrong_time"  # the same part of what a model carries, taken from source at another time
    WRONG_SITE = "wrong_site"  # the same intervention at a site that should not matter
    COPY = "copy"  # the input given back unchanged
    SINGLE_SWAP = "single_swap"  # of several variables swapped at once, the better one alone
    SAME_VALUE = "same_value"  # swapped from a source in which the variable is the same: the answer must stay
    UNPATCHED = "unpatched"  # the model left alone, judged on the same pairs
    RANDOM_CIRCUIT = "random_circuit"  # random circuits with the same number of edges
    RANDOM_PATHS = "random_paths"  # random circuits of as many edges, each a union of paths from input to logits
    RANDOM_PART = "random_part"  # random parts (nodes, neurons or directions) of the same number
    EVEN = "even"  # attention spread evenly over all that a query may look at
    RANDOM_TEXT = "random_text"  # texts of characters drawn uniformly, of the same lengths
    EXACT_SAMPLER = "exact_sampler"  # as many texts drawn by the rule itself
    RULE = "rule"  # the rule's own distribution in the place of the model's
    CONTEXT_FLOOR = "context_floor"  # the best that any model of so many last characters can do, by the rule's chain
    RANDOM_MATCHING = "random_matching"  # heads of two models paired at random within their layers


class Metric(StrEnum):
    """What was measured, with its direction and range."""

    LOSS = "loss"  # cross-entropy in nats a token, lower is better
    EXACT_MATCH = "exact_match"  # share of whole next states that are right, 0 to 1
    BLOCK_ACCURACY = "block_accuracy"  # share of states whose named block is right, 0 to 1
    TOKEN_ACCURACY = "token_accuracy"  # share of tokens that are right, 0 to 1
    CHANGED_TOKEN_ACCURACY = (
        "changed_token_accuracy"  # share of the tokens that the step changes that are right, 0 to 1
    )
    CALIBRATION_ERROR = "calibration_error"  # |confidence - share right| averaged over confidence bins, 0 is best
    CONFIDENCE = "confidence"  # mean probability given to the whole greedy answer in a confidence bin, 0 to 1
    RELIABILITY = "reliability"  # share of whole answers that are right in a confidence bin, 0 to 1
    SURVIVAL = "survival"  # share of programs that the model has followed without an error for so many steps, 0 to 1
    DEPARTURE = "departure"  # share of programs whose first error is made on this op and outcome, 0 to 1
    SEQUENCE_MATCH = "sequence_match"  # share of whole streams, chains or outputs without an error, 0 to 1
    ENTRIES_RIGHT = "entries_right"  # share of the entries of written chains that are the machine's, 0 to 1
    WRITTEN_TOKENS = "written_tokens"  # tokens of a chain that a model writes before it answers
    GAIN = "gain"  # share right less that of one pass on the same examples, -1 to 1, higher is better
    VARIATIONAL_BOUND = "variational_bound"  # on the nats of a whole answer given its prompt, lower is better
    DECIDED_AT = "decided_at"  # when a token is filled in, as a share of the passes, 0 = in the first, 1 = in the last
    OVERLAP = "overlap"  # share of held-out units that a run was shown in training in another guise, 0 to 1, 0 is best
    RUN_STEPS = "run_steps"  # executed instructions of an example
    LOOP_STEPS = "loop_steps"  # steps of a loop until it halts, at least 1
    MOVEMENT = "movement"  # how far a loop step moves its carry, as a share of the carry's length, 0 = it stands still
    SETTLED = "settled"  # share of examples whose carry stands still by then, 0 to 1
    BROKEN = "broken"  # share of the answers right by one way of stopping that are wrong by another, 0 to 1, 0 is best
    MENDED = "mended"  # share of the answers wrong by one way of stopping that are right by another, 0 to 1
    REWARD = "reward"  # mean credit of a sampled token, 0 to 1, higher is better
    PASS_AT_K = "pass_at_k"  # share of programs of whose k sampled answers one is right, 0 to 1; while training k = 1
    KEPT = "kept"  # share of sampled answers that were learned from, 0 to 1
    ENTROPY = "entropy"  # of the next token, at tokens that were sampled, nats
    POLICY_KL = "policy_kl"  # estimated divergence a sampled token from the model that training started with, nats
    GRADIENT_NORM = "gradient_norm"  # before clipping
    LEARNING_RATE = "learning_rate"  # of the hidden matrices
    SECONDS = "seconds"  # training time so far
    STEP_SECONDS = "step_seconds"  # processor time of one training step, forward and backward, lower is better
    TOKENS_A_SECOND = "tokens_a_second"  # of answers, said greedily, a second of processor time, higher is better
    RECORDS = "records"  # training records seen so far
    ACCURACY = "accuracy"  # share of held-out labels that a probe gets right, 0 to 1
    SELECTIVITY = "selectivity"  # accuracy minus control-task accuracy, -1 to 1, higher is more telling
    SEMANTIC_GAP = "semantic_gap"  # accuracy minus that under altered semantics, -1 to 1, higher is more telling
    COMPRESSION = "compression"  # bits of uniform codes over online code length with a probe's help; 1 = no help
    EDIT_SUCCESS = "edit_success"  # share of edits after which the model answers as the machine does so set, 0 to 1
    JOINT_EXACTNESS = "joint_exactness"  # share of states whose every cell is decoded right, 0 to 1
    IIA = "iia"  # interchange-intervention accuracy: the whole answer is the counterfactual one, 0 to 1
    RETURN = "return"  # share of pairs whose answer is base's own again after an edit, 0 to 1
    EFFECT_ACCURACY = "effect_accuracy"  # of what should change, the share that is right, averaged over pairs, 0 to 1
    SIDE_ACCURACY = "side_accuracy"  # of what should stay, punctuation left out, the share that stayed, 0 to 1
    LOGIT_DIFFERENCE = "logit_difference"  # logit(clean token) - logit(corrupted token)
    FAITHFULNESS = "faithfulness"  # 1 = the full model, 0 = the empty circuit; unbounded
    CPR = "cpr"  # area under faithfulness over edge fraction, higher is better, unbounded
    CMD = "cmd"  # area of |1 - faithfulness| over edge fraction, 0 is best
    COMPLETENESS = "completeness"  # largest |F(C less K) - F(M less K)| over the model's gap, 0 is best
    MINIMALITY = "minimality"  # a node's largest |F(C less K and v) - F(C less K)| over the gap; near 0: not needed
    AUROC = "auroc"  # chance that a true part outscores one that is not, 0 to 1, 0.5 is chance
    PRECISION_AT_SIZE = "precision_at_size"  # share of true parts among the top as many as there are, 0 to 1
    PRECISION = "precision"  # share of what is found that is true, 0 to 1
    RECALL = "recall"  # share of true parts that are found, 0 to 1
    FALSE_POSITIVE_RATE = "false_positive_rate"  # share of parts that are not true and are found all the same, 0 to 1
    PRINCIPAL_ANGLE = "principal_angle"  # largest angle between two subspaces, degrees, 0 to 90, 0 is best
    ABLATION_LOSS = "ablation_loss"  # share of the logit difference's gap that an ablation takes, 0 = spared, 1 = gone
    DISSOCIATION = "dissociation"  # two parts A and B: the lesser of loss(A|A) - loss(B|A) and loss(B|B) - loss(A|B)
    JACCARD = "jaccard"  # parts in both circuits over parts in either, 0 to 1
    CIRCUIT_EDGES = "circuit_edges"  # size of the circuit chosen at the faithfulness threshold
    EFFECT = "effect"  # change of the logit difference when the part is patched
    EXPLAINED = "explained"  # share of a variance that groups of examples explain, 0 to 1
    SPEARMAN = "spearman"  # rank correlation, -1 to 1
    DESCRIBED = "described"  # share of neurons whose strongest inputs a simple rule describes, 0 to 1
    BITS = "bits"  # cross-entropy of held-out text in bits a character, lower is better
    KL = "kl"  # KL(exact distribution of the next character || model's), nats a character, 0 is best
    ILLEGAL_MASS = "illegal_mass"  # probability given to characters that the rule forbids, a character, 0 is best
    IN_DISTRIBUTION = "in_distribution"  # share of texts that the rule allows, 0 to 1
    NOVELTY = "novelty"  # share of allowed texts that training never showed, 0 to 1, beside the exact sampler's
    TOTAL_VARIATION = "total_variation"  # half the L1 distance of two next-character distributions, 0 to 1
    INDUCTION = "induction"  # share of a head's attention on what followed earlier uses of the last character, 0 to 1
    UNIQUENESS = "uniqueness"  # share of texts that are different ones, 0 to 1, beside the exact sampler's
    COMMUTES = "commutes"  # share of sums answered alike with their summands exchanged, 0 to 1
    LOGIT_CHANGE = "logit_change"  # |difference| of the right token's logit between two ways to ask, 0 is best
    COSINE = "cosine"  # of the angle between two embeddings, -1 to 1
    ATTENTION = "attention"  # share of a head's attention that a query gives to some keys, 0 to 1
    REDRAW_RATE = "redraw_rate"  # share of drawn pairs that had no counterfactual, or nothing to compare, 0 to 1


class Aggregation(StrEnum):
    """Over what the estimate averages."""

    MEAN = "mean"  # over the n examples of the row
    MACRO = "macro"  # over op x outcome strata, each counted once
    MEDIAN = "median"  # over the n examples of the row
    MINIMUM = "minimum"  # the least of the n examples of the row


class IntervalKind(StrEnum):
    """What the interval stands for."""

    BOOTSTRAP_PROGRAMS = "bootstrap_programs"  # 95 %, resampling whole programs
    WILSON = "wilson"  # 95 %, binomial over n states of n different programs
    MOVER = "mover"  # 95 %, Wilson intervals of the strata of a macro average combined (Zou & Donner 2008)
    SEEDS = "seeds"  # 95 %, Student's t over five or more training seeds
    SEED_RANGE = "seed_range"  # least and greatest of fewer than five training seeds: spread
    NULL_RANGE = "null_range"  # 2.5 and 97.5 percentile of the random draws themselves
    EXAMPLES = "examples"  # 5 and 95 percentile of the examples themselves: spread, not uncertainty
    BOOTSTRAP_PAIRS = "bootstrap_pairs"  # 2.5 and 97.5 percentile over resamples of the pairs themselves: spread


# Of state interchange: two strata, and the part that is read at the asking position alone.
APART = "changes, pointers apart"  # where cell[i] and cell[@array_ptr+k] are different cells
BYSTANDERS = "bystanders"  # pairs whose answer does not hang on the edit
READOUT = "readout"

COLUMNS: dict[str, str] = {
    "run": "string",
    "seed": "Int64",
    "checkpoint_step": "Int64",
    "architecture": "string",
    "world": "string",
    "task": "string",
    "op": "string",
    "site": "string",
    "position": "string",
    "time": "Int64",
    "lag": "Int64",
    "variable": "string",
    "method": "string",
    "map": "string",
    "part": "string",
    "part_size": "Int64",
    "carrier_size": "Int64",
    "pair_design": "string",
    "stratum": "string",
    "rank": "Int64",
    "granularity": "string",
    "ablation": "string",
    "circuit_size": "Int64",
    "steps": "Int64",
    "control": "string",
    "metric": "string",
    "aggregation": "string",
    "estimate": "float64",
    "ci_low": "float64",
    "ci_high": "float64",
    "interval_kind": "string",
    "n": "Int64",
}
_LATER = (
    "world",
    "time",
    "lag",
    "map",
    "part",
    "part_size",
    "carrier_size",
    "steps",
)  # columns that files written before they existed lack: null there
_ENUMS: dict[str, type[StrEnum]] = {
    "method": Method,
    "control": Control,
    "metric": Metric,
    "aggregation": Aggregation,
    "interval_kind": IntervalKind,
}

_NAME = re.compile(r"[a-z][a-z0-9_]*")


def steps_of(method: str, steps: int) -> int | None:
    """What the column `steps` holds of a method's rows: None where it integrates no gradients."""
    return steps if method == Method.EAP_IG else None


def method_named(name: str) -> str:
    """The method of that name; one of a registry that somebody else's file entered is its own name.

    Raises:
        ResultsError: it is spelt as no name of a method can be.
    """
    if name in set(Method):
        return Method(name)
    if not _NAME.fullmatch(name):
        raise ResultsError(f"the name of a method must be lower-case letters, digits and _; got {name!r}")
    return name


def _foreign(column: str, value: Any) -> bool:
    """Whether a value may be the name of a registry's entry that this version does not bring."""
    return column == "method" and isinstance(value, str) and _NAME.fullmatch(value) is not None


class ResultsError(ValueError):
    """A row is not what the tidy frame allows."""


def rows_frame(rows: Iterable[Mapping[str, Any]]) -> pd.DataFrame:
    """A frame with every column of `COLUMNS`, in order, from rows that name only what applies.

    Raises:
        ResultsError: a row names an unknown column, or a value that its enum lacks.
    """
    import pandas as pd

    rows = list(rows)
    for row in rows:
        if unknown := set(row) - set(COLUMNS):
            raise ResultsError(f"a result row names {sorted(unknown)}; the columns are {', '.join(COLUMNS)}")
        for column, enum in _ENUMS.items():
            value = row.get(column)
            if value is not None and value not in set(enum) and not _foreign(column, value):
                raise ResultsError(f"{column}={value!r} is not one of {', '.join(enum)}")
    frame = pd.DataFrame.from_records([dict.fromkeys(COLUMNS) | dict(row) for row in rows], columns=list(COLUMNS))
    return frame.astype(COLUMNS)  # type: ignore[arg-type]


def write_frame(frame: pd.DataFrame, path: Path, *, provenance: Mapping[str, Any] | None = None) -> None:
    """Write a tidy frame to Parquet, whole or not at all. `provenance` (versions, seed, hash) travels in the file."""
    import pyarrow as pa
    import pyarrow.parquet as pq

    frame = rows_frame([]) if frame.empty else frame[list(COLUMNS)].astype(COLUMNS)  # type: ignore[arg-type]
    schema = pa.schema(list(_arrow_types().items()))
    table = pa.Table.from_pandas(frame, schema=schema, preserve_index=False)
    table = table.replace_schema_metadata({"tapelens": json.dumps(dict(provenance or {}))})
    with atomic_path(path) as temporary:
        pq.write_table(table, temporary, compression="zstd")


def read_frame(path: Path | str) -> pd.DataFrame:
    """Read a tidy frame; `frame.attrs["provenance"]` holds what was written beside it.

    Raises:
        FileNotFoundError: there is no such file.
        BrokenFileError: the file is not a tidy frame of this version.
    """
    table, provenance = read_table(Path(path))
    frame = table.to_pandas().astype(COLUMNS)
    frame.attrs["provenance"] = provenance
    return frame


def read_table(path: Path) -> tuple[pa.Table, dict[str, Any]]:
    """As `read_frame`, without pandas: the table, and what was written beside it. Raises as `read_frame`."""
    import pyarrow as pa

    table, provenance = read_parquet(path)
    types = _arrow_types()
    with reading(path, "a results frame of this version", pa.ArrowException):
        if missing := set(COLUMNS) - set(table.column_names) - set(_LATER):
            raise ResultsError(f"it lacks the columns {sorted(missing)}")
        for name in (name for name in _LATER if name not in table.column_names):
            table = table.append_column(name, pa.nulls(len(table), types[name]))
        table = table.select(list(COLUMNS))
        for column, kind in types.items():
            if (found := table.schema.field(column).type) != kind:
                raise ResultsError(f"its column {column} holds {found}, not {kind}")
        for column, enum in _ENUMS.items():
            found = set(table[column].unique().drop_null().to_pylist()) - set(enum)
            if unknown := {value for value in found if not _foreign(column, value)}:
                raise ResultsError(f"its column {column} holds {min(unknown)!r:.60}, which is no {enum.__name__}")
    return table, provenance


def _arrow_types() -> dict[str, pa.DataType]:
    """The type of each column in a file."""
    import pyarrow as pa

    types = {"string": pa.string(), "Int64": pa.int64(), "float64": pa.float64()}
    return {name: types[kind] for name, kind in COLUMNS.items()}


def select(frame: pd.DataFrame, **columns: Any) -> pd.DataFrame:
    """The rows whose named columns equal the given values; None asks that the column be absent."""
    keep = np.ones(len(frame), dtype=bool)
    for column, value in columns.items():
        values = frame[column]
        keep &= (values.isna() if value is None else (values == value).fillna(False)).to_numpy(dtype=bool)
    return frame.loc[keep]


def records(frame: pd.DataFrame) -> list[dict[str, Any]]:
    """The rows as dicts, with None where a column is absent."""
    import pandas as pd

    rows: list[dict[str, Any]] = frame.astype(object).to_dict("records")  # type: ignore[call-overload]
    return [{name: None if pd.isna(value) else value for name, value in row.items()} for row in rows]


def wilson_interval(successes: float, n: int, *, z: float = 1.959964) -> tuple[float, float]:
    """The 95 % Wilson score interval of a binomial share (Wilson 1927); (nan, nan) for n = 0."""
    if n == 0:
        return float("nan"), float("nan")
    share = successes / n
    centre = (share + z * z / (2 * n)) / (1 + z * z / n)
    half = z * np.sqrt(share * (1 - share) / n + z * z / (4 * n * n)) / (1 + z * z / n)
    return float(max(0.0, centre - half)), float(min(1.0, centre + half))


def site_order(sites: Iterable[str]) -> list[str]:
    """Sites along the model: what is before the blocks, then block by block."""
    within = ("hook_resid_pre", "hook_attn_out", "hook_resid_mid", "hook_mlp_out", "hook_resid_post")

    def key(site: str) -> tuple[int, int, str]:
        match = re.fullmatch(r"blocks\.(\d+)\.(.+)", site)
        if match is None:
            return (-1 if "embed" in site else 10**6, 0, site)
        return (int(match[1]), within.index(match[2]) if match[2] in within else 2, site)

    return sorted(set(sites), key=key)
