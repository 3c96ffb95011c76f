"""Interventions: read activations, put others in their place, and hold what comes out against the world."""

from interp.interventions.activations import ablate, check_sites, collect, patch_from
from interp.interventions.by_stratum import Swap, stratum_rows
from interp.interventions.carrier import Carrier
from interp.interventions.carrier_parts import Part, parts_of
from interp.interventions.carrier_subspaces import FITTED, SubspaceFit, fit_subspace
from interp.interventions.das import (
    DasConfig,
    DasFit,
    das_rows,
    fit_das,
    principal_angles,
    row_and_null_parts,
    subspace_swaps,
)
from interp.interventions.deepening import METHODS, best_places, deepen, jobs_done
from interp.interventions.edits import EditedAnswer, ablated, edited_answer, one_edits, source_with, swapped
from interp.interventions.effective_attention import effective_attention
from interp.interventions.experiment import named_sites, run_interventions
from interp.interventions.interchange import (
    iia_sweep,
    interchange,
    random_basis,
    residual_sites,
    swaps_of,
)
from interp.interventions.joint import joint_rows, swapped_answers
from interp.interventions.joint_pairs import JointPairs
from interp.interventions.pairs import SharedPairs
from interp.interventions.patching import Patch, ablation_value, patch_activation, patched, read_positions
from interp.interventions.recipe import Done, Edit, carry_out, python
from interp.interventions.scores import BASE_RIGHT, site_column
from interp.interventions.search import PositionSet, candidate_parts, smallest_set, smallest_set_rows
from interp.interventions.state import carrier_swapped, carrier_values
from interp.interventions.state_interchange import LAGS, state_rows
from interp.interventions.stratum_sweep import stratum_sweep
from interp.interventions.subspaces import mean_difference_basis, subspace_rows
from interp.interventions.sweep import Interchange, interchange_answers
from interp.tasks.sites import Site, block_slots, resolve

__all__ = [
    "BASE_RIGHT",
    "FITTED",
    "LAGS",
    "METHODS",
    "Carrier",
    "DasConfig",
    "DasFit",
    "Done",
    "Edit",
    "EditedAnswer",
    "Interchange",
    "JointPairs",
    "Part",
    "Patch",
    "PositionSet",
    "SharedPairs",
    "Site",
    "SubspaceFit",
    "Swap",
    "ablate",
    "ablated",
    "ablation_value",
    "best_places",
    "block_slots",
    "candidate_parts",
    "carrier_swapped",
    "carrier_values",
    "carry_out",
    "check_sites",
    "collect",
    "das_rows",
    "deepen",
    "edited_answer",
    "effective_attention",
    "fit_das",
    "fit_subspace",
    "iia_sweep",
    "interchange",
    "interchange_answers",
    "jobs_done",
    "joint_rows",
    "mean_difference_basis",
    "named_sites",
    "one_edits",
    "parts_of",
    "patch_activation",
    "patch_from",
    "patched",
    "principal_angles",
    "python",
    "random_basis",
    "read_positions",
    "residual_sites",
    "resolve",
    "row_and_null_parts",
    "run_interventions",
    "site_column",
    "smallest_set",
    "smallest_set_rows",
    "source_with",
    "state_rows",
    "stratum_rows",
    "stratum_sweep",
    "subspace_rows",
    "subspace_swaps",
    "swapped",
    "swapped_answers",
    "swaps_of",
]
