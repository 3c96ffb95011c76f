"""What do random programs do? Run them for more than a million steps and plot how long they last and how far they get.

python examples/machine_statistics.py statistics.html
"""

from pathlib import Path

import numpy as np
import plotly.graph_objects as go
import tyro
from plotly.subplots import make_subplots

from cython_vm import MachineSpec, Op, Outcome, run, sample


def main(out: tyro.conf.Positional[Path], /, *, n: int = 100_000, limit: int = 200, seed: int = 0) -> go.Figure:
    """Run n random programs from their first instruction and write two distributions to an HTML page.

    Args:
        out: the page.
        n: how many programs.
        limit: steps after which a run is cut off.
        seed: of the programs and tapes.
    """
    states = sample(MachineSpec(), n, seed=seed).replace("instruction_ptr", 0)
    trace = run(states, limit)  # every state of every run

    loops = np.minimum((states.program == Op.WHILE).sum(axis=1), 3)
    cell_visits = np.zeros((n, states.spec.n_cells), dtype=bool)
    assert trace.states is not None  # kept by default
    cell_visits[trace.row_index, trace.states.array_ptr] = True
    cells = cell_visits.sum(axis=1)

    endless = trace.outcome == Outcome.RAN
    print(f"{n:,} programs ran {trace.n_steps.sum():,} steps; {endless.mean():.1%} still ran after {limit}")
    for outcome in Outcome:
        print(f"  {outcome.name:16} {(trace.outcome == outcome).mean():6.1%}")

    figure = make_subplots(1, 2, subplot_titles=("Ran at least t steps", "Distinct cells visited"))
    for count, name, color in zip(
        range(4),
        ("no loop", "1 loop", "2 loops", "3 or more"),
        ("#999999", "#56b4e9", "#0072b2", "#d55e00"),
        strict=True,
    ):
        of_these = loops == count
        if not of_these.any():
            continue
        lasted = np.bincount(trace.n_steps[of_these], minlength=limit + 1)
        at_least = lasted[::-1].cumsum()[::-1] / of_these.sum()
        visited = np.bincount(cells[of_these], minlength=states.spec.n_cells + 1)[1:] / of_these.sum()
        style = {"name": f"{name} ({of_these.sum():,})", "legendgroup": name}
        figure.add_scatter(x=np.arange(1, limit + 1), y=at_least[1:], line={"color": color}, row=1, col=1, **style)
        figure.add_bar(x=np.arange(1, len(visited) + 1), y=visited, marker_color=color, showlegend=False,
                       row=1, col=2, **style)  # fmt: skip
    figure.update_xaxes(title="t", type="log", tickvals=[1, 2, 5, 10, 20, 50, 100, 200], row=1, col=1)
    figure.update_xaxes(title="cells", dtick=1, row=1, col=2)
    figure.update_yaxes(title="share of programs", title_standoff=4, tickformat=".0%", rangemode="tozero")
    figure.update_layout(
        template="simple_white",
        title=f"{n:,} random programs, {trace.n_steps.sum():,} steps",
        legend_title="loops in the program",
    )
    out.parent.mkdir(parents=True, exist_ok=True)
    figure.write_html(out)
    print(f"figure in {out}")
    return figure


if __name__ == "__main__":
    tyro.cli(main)
