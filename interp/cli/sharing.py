"""Sharing runs: push."""

from __future__ import annotations

import tyro

from interp.cli.arguments import RunPath
from interp.console import say
from interp.runs import load
from interp.runs.hub_names import MAX_GB, require_repository


def push(
    run: RunPath,
    repository: tyro.conf.Positional[str],
    *,
    public: bool = False,
    max_gb: float = MAX_GB,
    dry_run: bool = False,
) -> None:
    """Send a run to a hub of models as OWNER/NAME, private unless told otherwise: config, card, weights, frames and
    circuits, in one commit. Anybody who may see it opens it with interp.load("hf://OWNER/NAME").

    Args:
        run: the run folder.
        repository: OWNER/NAME on the hub (HF_ENDPOINT, else the public one).
        public: let everybody see it.
        max_gb: how many gigabytes may be sent.
        dry_run: say what would be sent, and send nothing.
    """
    require_repository(repository)
    opened = load(run)
    from interp.runs.hub_access import require_token
    from interp.sharing import plan_push
    from interp.sharing import push as send

    if not dry_run:
        require_token()
    plan = plan_push(opened, repository, max_gb=max_gb)
    say(plan.in_words())
    if plan.notice:
        say(f"note: {plan.notice}")
    if dry_run:
        return
    say(f"pushing to {repository}, {'public' if public else 'private'}")
    say(f"pushed: {send(plan, public=public)}")
