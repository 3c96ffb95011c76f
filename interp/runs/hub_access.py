"""Talking to a hub of models: where it is, and its answers and silences as one sentence each."""

from __future__ import annotations

import contextlib
import os
from collections.abc import Iterator
from typing import TYPE_CHECKING

from interp.runs.hub_names import HubError

if TYPE_CHECKING:
    from huggingface_hub import HfApi


def endpoint() -> str:
    """The hub that is asked: `HF_ENDPOINT`, else the public one."""
    from huggingface_hub import constants

    return (os.environ.get("HF_ENDPOINT") or constants.ENDPOINT).rstrip("/")


def hub() -> HfApi:
    """The client of the hub that is asked. Nothing is sent yet."""
    from huggingface_hub import HfApi

    return HfApi(endpoint=endpoint(), library_name="tapelens")


def require_token() -> None:
    """Refuse to go on where nobody is logged in. Raises HubError; nothing is sent."""
    from huggingface_hub import get_token

    if not get_token():
        raise HubError("no token for the hub: log in with `hf auth login`, or set HF_TOKEN to a token that may write")


@contextlib.contextmanager
def asking(what: str) -> Iterator[None]:
    """Turn what may go wrong between us and a hub into `HubError`, in a sentence that begins with `what`."""
    from huggingface_hub import errors

    try:
        yield
    except errors.GatedRepoError:
        raise HubError(f"{what}: its owner has to grant you access first, on its page at {endpoint()}") from None
    except errors.RepositoryNotFoundError:
        raise HubError(
            f"{what}: no such repository at {endpoint()}, or it is private and your token may not see it"
        ) from None
    except errors.RevisionNotFoundError:
        raise HubError(f"{what}: the repository has no such revision") from None
    except errors.EntryNotFoundError as error:
        raise HubError(
            f"{what}: a file is not there or could not be reached ({_line(error.__cause__ or error)})"
        ) from None
    except errors.OfflineModeIsEnabled:
        raise HubError(f"{what}: offline, because HF_HUB_OFFLINE is set") from None
    except errors.HfHubHTTPError as error:
        status = error.response.status_code
        if status in (401, 403):
            raise HubError(f"{what}: {endpoint()} says that your token may not do this ({status})") from None
        raise HubError(f"{what}: {endpoint()} answered {status} ({_line(error)})") from None
    except errors.HTTPError as error:  # type: ignore[attr-defined]  # the transport's: nobody there, or a broken line
        raise HubError(f"{what}: {endpoint()} cannot be reached, or the line broke ({_line(error)})") from None
    except (OSError, ValueError) as error:
        if isinstance(error, HubError):
            raise
        raise HubError(f"{what}: {_line(error)}") from None


def _line(error: BaseException) -> str:
    """The first line of a message, which may go on for a paragraph."""
    lines = [line.strip() for line in str(error).splitlines() if line.strip()]
    return lines[0][:200] if lines else type(error).__name__
