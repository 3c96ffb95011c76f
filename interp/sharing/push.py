"""Sending a run to a hub: one commit that arrives whole or not at all."""

from __future__ import annotations

import warnings
from typing import Any

from interp.runs.hub_access import asking, hub, require_token
from interp.runs.hub_names import SCHEME, HubError, is_commit, is_shared
from interp.sharing.plan import PushPlan

_OF_THE_HUB = {"README.md", ".gitattributes"}


def push(plan: PushPlan, *, public: bool = False) -> str:
    """Make a repository of the plan's name, or go on with it, and send the files.

    A repository that is there must hold a run and nothing else, and be as private as was asked; files of the run that
    it held and that the plan has no more are removed by the same commit.

    Returns:
        Where it lies now, `hf://OWNER/NAME@COMMIT`.

    Raises:
        HubError: nobody is logged in, the hub cannot be reached or refuses, or the repository is something else. Then
            nothing in it was changed.
    """
    from huggingface_hub import CommitOperationAdd, CommitOperationDelete

    require_token()
    what = f"{plan.run.name} was not pushed to {plan.repository}"
    with asking(what):
        held = _held(plan, public=public)
        if held is None:
            hub().create_repo(plan.repository, private=not public, exist_ok=False)
            held = set()
        operations: list[Any] = [CommitOperationAdd("README.md", plan.readme.encode())]
        operations += [CommitOperationAdd(file.name, file.path) for file in plan.files]
        gone = held - {file.name for file in plan.files} - _OF_THE_HUB
        operations += [CommitOperationDelete(name) for name in sorted(gone)]
        with warnings.catch_warnings():
            warnings.filterwarnings("ignore", "It seems that you are about to commit a data file")
            made = hub().create_commit(
                plan.repository, operations, commit_message=f"{plan.run.name}, config {plan.run.config.digest}"
            )
    if not is_commit(made.oid):
        raise HubError(f"{what}: the hub did not say under which commit")
    return f"{SCHEME}{plan.repository}@{made.oid}"


def _held(plan: PushPlan, *, public: bool) -> set[str] | None:
    """The files that the repository holds; None where there is none. Raises HubError where it is something else."""
    from huggingface_hub.errors import RepositoryNotFoundError

    try:
        info = hub().model_info(plan.repository)
    except RepositoryNotFoundError:
        return None
    names = {each.rfilename for each in info.siblings or ()}
    foreign = sorted(name for name in names - _OF_THE_HUB if not is_shared(name))
    if foreign or (names - _OF_THE_HUB and "config.json" not in names):
        shown = foreign[0][:80] if foreign else "no config.json"
        raise HubError(f"{plan.repository} holds something else than a run ({shown}): choose another name")
    if bool(info.private) == public:
        is_now, asked = ("private", "--public asks for") if info.private else ("public", "without --public it is to be")
        other = "a public one" if info.private else "private"
        raise HubError(f"{plan.repository} is {is_now} there, but {asked} {other}: change that on its settings page")
    return names
