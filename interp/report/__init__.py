"""The report of a run: one self-contained page made from the run's files, read without a network."""

from __future__ import annotations

from pathlib import Path

from interp.files import write_text
from interp.report.behaviour import accuracy_section, learning_section, model_section, overview
from interp.report.circuits import circuits_section
from interp.report.material import read_material
from interp.report.page import Page, Section, escape
from interp.report.probes import probes_section
from interp.report.states import has_states, states_section
from interp.report.swaps import interventions_section
from interp.report.thinking import thinking_section, thinks
from interp.runs import Run

__all__ = ["write_report"]


def write_report(run: Run) -> Path:
    """Write RUN/report.html, whole or not at all, and return its path.

    A part of the run that is missing or does not belong to its weights leaves a box with the command that makes it.
    The same files give the same page, byte for byte.
    """
    material = read_material(run)
    page = Page()
    sections = [
        Section("model", "The model", "What is it?", model_section(material)),
        Section("accuracy", "Accuracy", "Does it get the machine right?", accuracy_section(material, page)),
        Section("learning", "Learning", "How did it learn?", learning_section(material, page)),
        Section("probes", "Probes", "What can be read off its activations?", probes_section(material, page)),
        Section("interventions", "Interventions", "What does it use?", interventions_section(material, page)),
        *(
            [Section("states", "State", "What does it carry?", states_section(material, page))]
            if has_states(material)
            else []
        ),
        *(
            [Section("thinking", "Thinking", "How does an answer come about?", thinking_section(material, page))]
            if thinks(material)
            else []
        ),
        Section("circuits", "Circuits", "Which parts carry each instruction?", circuits_section(material, page)),
    ]
    text = page.render(
        title=f"{run.name} · TapeLens report",
        header=overview(material),
        sections=sections,
        footer=f"<p>Written by TapeLens {escape(material.versions.get('tapelens', ''))} from the files of the run "
        f"{escape(run.name)} alone. Nothing on this page was requested from a network.</p>",
    )
    path = run.path / "report.html"
    write_text(path, text)
    return path
