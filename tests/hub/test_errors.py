"""Every refusal of the Hub as one sentence, and which of them are worth another attempt."""

from importlib import import_module
from typing import Any

import pytest
from huggingface_hub.errors import HfHubHTTPError, HTTPError, LocalTokenNotFoundError, OfflineModeIsEnabled

from sk_transformers.hub.errors import PushError, may_pass, raise_push_errors

httpx: Any = import_module(HTTPError.__module__.partition(".")[0])  # httpx2 since huggingface_hub 2


def refusal(status, message=None):
    """What the client raises for an answer of this status."""
    request = httpx.Request("POST", "https://hub.example/api")
    response = httpx.Response(status, headers={"X-Error-Message": message} if message else {}, request=request)
    return HfHubHTTPError("refused", response=response)


def caused(error, cause):
    error.__cause__ = cause
    return error


@pytest.mark.parametrize(
    ("error", "sentence", "passes"),
    [
        (refusal(401), "the Hub does not accept the token: it may have expired", False),
        (refusal(403, "no  right\nhere"), r"the token may not write to org/tiny \(no right here\): choose", False),
        (refusal(404), "the Hub has no org/tiny, or does not show it to this token", False),
        (refusal(409), "somebody else changes org/tiny at the same time: run the same command again", True),
        (refusal(412), "somebody else changes org/tiny at the same time", True),
        (refusal(429), "the Hub asks for patience: run the same command again in some minutes", True),
        (refusal(503), r"the Hub is in trouble \(status 503\): run the same command again later", True),
        (refusal(418), "the Hub refused with status 418[.]", False),
        (OfflineModeIsEnabled("no"), "HF_HUB_OFFLINE is set, and nothing can be pushed offline: unset it", False),
        (LocalTokenNotFoundError("no"), "there is no token to push with: log in by `hf auth login`", False),
        (httpx.ReadTimeout("slow"), r"the connection to the Hub broke off \(ReadTimeout\): run the same command", True),
        (caused(RuntimeError("an upload"), refusal(403)), "the token may not write to org/tiny", False),
        (caused(RuntimeError("an upload"), httpx.ConnectError("gone")), r"broke off \(ConnectError\)", True),
    ],
)
def test_a_refusal_in_one_sentence(error, sentence, passes):
    with pytest.raises(PushError, match=f"^.*{sentence}") as raised, raise_push_errors("org/tiny"):
        raise error
    assert "\n" not in str(raised.value) and str(raised.value).endswith((".", "HF_TOKEN."))
    assert may_pass(error) == passes


def test_other_errors_stay_what_they_are():
    with pytest.raises(KeyError), raise_push_errors("org/tiny"):
        raise KeyError("a mistake of ours")
