"""What keeps a folder from the Hub, as one sentence that says why and what to do."""

import json
from collections.abc import Iterator
from contextlib import contextmanager

from huggingface_hub.errors import (
    HfHubHTTPError,
    HTTPError,
    LocalEntryNotFoundError,
    LocalTokenNotFoundError,
    OfflineModeIsEnabled,
)

# What the client raises: for the Hub's answers, for connections and for answers that are not JSON; the last two for
# uploads and downloads, whose reason is their cause.
HUB_ERRORS = (
    HTTPError,
    OfflineModeIsEnabled,
    LocalTokenNotFoundError,
    json.JSONDecodeError,
    RuntimeError,
    LocalEntryNotFoundError,
)


class PreflightError(ValueError):
    """A folder that is not fit to be published; its message is one sentence that says why and what to do."""


class PushError(OSError):
    """A refusal of the Hub or of the way to it; its message is one sentence that says why and what to do."""


@contextmanager
def raise_push_errors(repo_id: str) -> Iterator[None]:
    """Raise a PushError in place of whatever the Hub's client raises."""
    try:
        yield
    except HUB_ERRORS as error:
        raise PushError(explain(error, repo_id)) from error


def root_cause(error: BaseException) -> BaseException:
    """Return what the Hub or the connection said, in the chain of causes of an error; the error itself if nothing."""
    cause: BaseException | None = error
    while cause is not None and not isinstance(cause, HUB_ERRORS[:3]):
        cause = cause.__cause__
    return error if cause is None else cause


def may_pass(error: Exception) -> bool:
    """Return whether the same may work a little later, from what is on the Hub then."""
    cause = root_cause(error)
    if isinstance(cause, (OfflineModeIsEnabled, LocalTokenNotFoundError)):
        return False
    if isinstance(cause, HfHubHTTPError):
        return cause.response.status_code in (408, 409, 412, 429) or cause.response.status_code >= 500
    return True


def explain(error: Exception, repo_id: str) -> str:
    """Return one sentence on why the Hub, or the way to it, refused, and what to do."""
    cause = root_cause(error)
    if isinstance(cause, OfflineModeIsEnabled):
        return "HF_HUB_OFFLINE is set, and nothing can be pushed offline: unset it."
    if isinstance(cause, LocalTokenNotFoundError):
        return "there is no token to push with: log in by `hf auth login`, or set HF_TOKEN."
    if not isinstance(cause, HfHubHTTPError):
        return (
            f"the connection to the Hub broke off ({type(cause).__name__}): run the same command again, and it goes on"
            " from what was uploaded."
        )
    status = cause.response.status_code
    said = " ".join((cause.server_message or cause.response.headers.get("X-Error-Message") or "").split())
    said = f" ({said})" if said else ""
    if status == 401:
        return f"the Hub does not accept the token{said}: it may have expired; log in anew by `hf auth login`."
    if status == 403:
        return f"the token may not write to {repo_id}{said}: choose another namespace, or a token with that right."
    if status == 404:
        return f"the Hub has no {repo_id}, or does not show it to this token{said}: see that the name is right."
    if status in (409, 412):
        return f"somebody else changes {repo_id} at the same time{said}: run the same command again."
    if status == 429:
        return f"the Hub asks for patience{said}: run the same command again in some minutes."
    if status >= 500:
        return f"the Hub is in trouble (status {status}){said}: run the same command again later."
    return f"the Hub refused with status {status}{said}."
