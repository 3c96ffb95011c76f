"""Studies: questions that combine methods and runs, and the stages that measure a run and keep what they found."""

from interp.studies.along import AlongConfig, circuits_at
from interp.studies.approximations import compare_approximations
from interp.studies.dissociation import Dissociation, DissociationConfig, dissociate, dissociation_rows
from interp.studies.evidence import EvidenceConfig, gather_evidence
from interp.studies.examples import EdgeExamples, edge_examples, read_examples
from interp.studies.seeds import match_heads, seed_agreement

__all__ = [
    "AlongConfig",
    "Dissociation",
    "DissociationConfig",
    "EdgeExamples",
    "EvidenceConfig",
    "circuits_at",
    "compare_approximations",
    "dissociate",
    "dissociation_rows",
    "edge_examples",
    "gather_evidence",
    "match_heads",
    "read_examples",
    "seed_agreement",
]
