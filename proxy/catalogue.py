"""When each error comes and what to do: the routes below /errors, and the page docs/errors.md.

`python -m proxy.catalogue > docs/errors.md` writes the page.
"""

from __future__ import annotations

import sys
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from typing import Final

from proxy import errors
from proxy.errors import RelayError


@dataclass(frozen=True, slots=True)
class Advice:
    """When an error comes, and what helps."""

    when: str
    remedy: str


ADVICE: Final[Mapping[type[RelayError], Advice]] = {
    errors.BadCall: Advice(
        "the request target can't be read as a call, or names no `server`",
        "use a form of the contract; quote the URL in a shell; with an SDK that drops the query of "
        "its base URL use `/proxy/<service>/...`",
    ),
    errors.BadDestination: Advice(
        "the URL in `server` breaks the strict syntax",
        "send a plain `https://host/path`, percent-encoded; `detail` says what is wrong with it",
    ),
    errors.AmbiguousService: Advice(
        "no `service` was named, and several fit the host",
        "add `service=` with one of those in `detail`",
    ),
    errors.BadRequest: Advice(
        "the request itself is malformed: its framing, two `Authorization` fields, a body that is "
        "not as long as it says, or the token a second time where it would be forwarded",
        "send well-formed HTTP/1.1, and the token in one place",
    ),
    errors.Unauthorized: Advice(
        "there is no token, or it is malformed, unknown, expired or revoked; or a key that belongs "
        "to several tenants stands in its place",
        "send a valid token; get one with `keyrelay token issue NAME`, or by your own login "
        "(docs/signing-in.md); the log's line of the call says why",
    ),
    errors.Forbidden: Advice(
        "the token is good, but not for this service, or its role may not call",
        "use another token; `keyrelay token list` shows what each is for",
    ),
    errors.KeyMissing: Advice(
        "the tenant has no key for the service, or not the one that the token names",
        "`keyrelay key add SERVICE`; `detail` has the whole command",
    ),
    errors.DestinationRefused: Advice(
        "the service's key may not go there, or nothing may: another host, port, scheme or path, "
        "or keyrelay itself",
        "check `server`; for a place of your own `keyrelay backend add URL --service SERVICE`; "
        "`keyrelay explain URL` shows which rule matches",
    ),
    errors.DestinationAddressProhibited: Advice(
        "the name, or the address, leads into a network that callers may not reach",
        "if it is yours, register it: `keyrelay backend add URL --service SERVICE`, or `origin`",
    ),
    errors.NotFound: Advice(
        "the path is none of ours",
        "calls go to `/proxy`; `/` says how",
    ),
    errors.UnknownService: Advice(
        "no service has the name in `service` or in the path",
        "`keyrelay service list TEXT` finds it; or name the host: `/proxy/https/<host>/...`",
    ),
    errors.MethodNotAllowed: Advice(
        "the method is CONNECT or TRACE",
        "use another; these two are never forwarded",
    ),
    errors.Conflict: Advice(
        "an admin adds what is there already, or changes what the configuration file declares",
        "take another name, change what is there, or change it in the file; `detail` says which",
    ),
    errors.UnsupportedContent: Advice(
        "a change is asked of the admin API with a body that is not JSON",
        "send `Content-Type: application/json`",
    ),
    errors.Unacceptable: Advice(
        "a name, a key or another value in a request to the admin API is not what is expected",
        "`detail` names the member and says what is expected; `/openapi.json` describes them all",
    ),
    errors.BodyTooLarge: Advice(
        "the request's body is above `limits.max_request_bytes`",
        "send less, or ask the admin for more",
    ),
    errors.TooManyRequests: Advice(
        "a limit of the token, or of its tenant, has no room for this call now",
        "wait as long as `detail` says; the admin changes limits with `keyrelay token set NAME`, "
        "or in `limits.quotas`",
    ),
    errors.BudgetSpent: Advice(
        "the token's upstream calls of this month are used up; answers from the cache go on",
        "wait for the next month (UTC), or `keyrelay token set NAME --budget N`",
    ),
    errors.TooManyGuesses: Advice(
        "more wrong tokens came from this address than `limits.wrong_tokens`; good ones that were "
        "seen before go on",
        "find who sends a wrong or an old token; wait as long as it says",
    ),
    errors.CallsSpent: Advice(
        "the number of calls that a token is good for in all is reached",
        "a short-lived one: make another with `POST /tokens`; a platform token: "
        "`keyrelay token set NAME --calls N`",
    ),
    errors.RequestTooSlow: Advice(
        "a header was not whole within ten seconds, or nothing of a body came for thirty",
        "send the request without long pauses; a large body may take as long as it flows",
    ),
    errors.HeaderTooLarge: Advice(
        "the request target is above 16 KiB, or the header above 64 KiB or 100 fields",
        "send less in the URL and the header, more in the body",
    ),
    errors.InternalError: Advice(
        "keyrelay failed, or a stored key can't be sent",
        "try again; the log has the cause under the `request_id`",
    ),
    errors.WebSocketUnsupported: Advice(
        "the request asks for an upgrade to WebSocket",
        "use the provider's HTTP API",
    ),
    errors.UpstreamError: Advice(
        "the answer is not valid HTTP, or does not say clearly where it ends",
        "try again; then ask whoever runs the destination",
    ),
    errors.UpstreamUnreachable: Advice(
        "the connection was refused, or broke before an answer",
        "check that the destination runs, and its port; try again",
    ),
    errors.UpstreamNameError: Advice(
        "the destination's name has no address",
        "check its spelling",
    ),
    errors.UpstreamTlsError: Advice(
        "the certificate is not valid for the name, or its authority is not known",
        "for a private authority set `server.upstream_ca`",
    ),
    errors.UpstreamIncomplete: Advice(
        "the connection ended in the middle of the answer; most often the answer had begun and is "
        "cut instead, without this error",
        "try again",
    ),
    errors.RedirectRefused: Advice(
        "the destination redirects to a place that this call may not go to",
        "`location` has the place: fetch it yourself without a key, or have it registered",
    ),
    errors.AnswerTooLarge: Advice(
        "the answer is above `limits.max_response_bytes`; one that does not say its length is cut "
        "there instead, without this error",
        "ask for less, or ask the admin for more",
    ),
    errors.Unavailable: Advice(
        "too many connections are open, the vault does not answer, a key does not open, the keys "
        "of a sign-in token's issuer can't be fetched, or keyrelay is stopping",
        "try again after `Retry-After`; if it stays, the log says why",
    ),
    errors.Overloaded: Advice(
        "as many calls are under way as `limits.concurrency` lets through, and this one's turn did "
        "not come within `limits.queue_timeout`, or `limits.queue_length` calls wait already",
        "try again after `Retry-After`; see docs/queueing.md",
    ),
    errors.TooManyConnections: Advice(
        "there are `server.max_connections` connections, or the caller's address has "
        "`server.max_connections_per_address` of them, or as many calls behind a trusted proxy",
        "use connections again, and close those that aren't; try again after `Retry-After`; see "
        "docs/operating.md",
    ),
    errors.UpstreamTimeout: Advice(
        "the destination took no more of the request, or answered too late",
        "try again; `limits.first_byte_timeout` and `limits.total_timeout` set how long is waited",
    ),
    errors.UpstreamNameTimeout: Advice(
        "the name servers did not answer in time",
        "try again",
    ),
    errors.UpstreamConnectTimeout: Advice(
        "no connection came about in time",
        "try again; `limits.connect_timeout` sets how long is waited",
    ),
    errors.CallTimeout: Advice(
        "the call did not end within the seconds of its own `X-Relay-Timeout`",
        "allow more, or try again",
    ),
    errors.LoopDetected: Advice(
        "the call has come through this install three times already",
        "check `server`: it leads back to keyrelay",
    ),
}
"""One row for each error."""

CATALOGUE: Final = tuple(ADVICE)

_GOOGLE: Final = {4: "ClientError", 5: "ServerError"}
_OPENAI: Final = {
    400: "BadRequestError",
    401: "AuthenticationError",
    403: "PermissionDeniedError",
    404: "NotFoundError",
    409: "ConflictError",
    422: "UnprocessableEntityError",
    429: "RateLimitError",
}
_ANTHROPIC: Final = {
    **_OPENAI,
    408: "RequestTimeoutError",
    413: "ContentTooLargeError",
    431: "RequestHeaderFieldsTooLargeError",
    501: "HTTPNotImplementedError",
    503: "ServiceUnavailableError",
    504: "GatewayTimeoutError",
}

_INTRODUCTION: Final = """\
# Errors

Every refusal and failure of keyrelay is `application/problem+json` (RFC 9457), with the member that
SDKs read inside:

```json
{
  "type": "/errors/key_missing",
  "title": "There is no key for this service yet",
  "status": 403,
  "detail": "There is no key for openai yet; add one with: keyrelay key add openai",
  "instance": "/proxy",
  "request_id": "4a1f...",
  "error": {
    "message": "There is no key for openai yet; add one with: keyrelay key add openai",
    "type": "permission_error",
    "code": "key_missing",
    "param": "service"
  }
}
```

- `Proxy-Status: keyrelay; error=...` (RFC 9209) stands on every one and on no answer of an
  upstream, whose own 401 or 500 comes through as it is.
- `x-should-retry: false` stands where trying again can't help. `Retry-After` is never above 60.
- `request_id` is the id under which the log has the cause of a 5xx.
- Once an answer has begun, a failure breaks the connection: a cut answer never looks whole.
- A running keyrelay has this page under `/errors`, and each entry under its `type`.
"""


def entry(kind: type[RelayError]) -> dict[str, object]:
    """One error as the routes below /errors tell it."""
    advice = ADVICE[kind]
    return {
        "type": f"/errors/{kind.code}",
        "status": kind.status,
        "title": kind.title,
        "when": advice.when,
        "remedy": advice.remedy,
        "sdk_type": kind.kind,
        "proxy_status": kind.proxy_status,
        "retry_helps": kind.retry_helps,
    }


def given() -> tuple[type[RelayError], ...]:
    """The errors that a caller can meet, by status."""
    return tuple(sorted(CATALOGUE, key=lambda kind: kind.status))


def sdk_exceptions(status: int) -> tuple[str, str, str]:
    """What the Python SDKs of OpenAI, Anthropic and Google raise for a status of ours."""
    other = "InternalServerError" if status >= 500 else "APIStatusError"
    return (_OPENAI.get(status, other), _ANTHROPIC.get(status, other), _GOOGLE[status // 100])


def document() -> str:
    """The whole page, as Markdown."""
    return "\n".join([_INTRODUCTION, *_errors(), "", *_exceptions(), ""])


def _errors() -> Iterator[str]:
    yield "| status | `code` | when | what to do | `type` for SDKs | in `Proxy-Status` | retry |"
    yield "|---|---|---|---|---|---|---|"
    for kind in given():
        advice = ADVICE[kind]
        retry = "yes" if kind.retry_helps else "no"
        words = f"{advice.when} | {advice.remedy} | `{kind.kind}` | `{kind.proxy_status}`"
        yield f"| {kind.status} | `{kind.code}` | {words} | {retry} |"


def _exceptions() -> Iterator[str]:
    yield "## In SDKs"
    yield ""
    yield "The exception that the providers' own Python SDKs raise, with our sentence in it:"
    yield ""
    yield "| status | openai | anthropic | google-genai |"
    yield "|---|---|---|---|"
    for status in sorted({kind.status for kind in given()}):
        names = " | ".join(f"`{name}`" for name in sdk_exceptions(status))
        yield f"| {status} | {names} |"


if __name__ == "__main__":
    sys.stdout.write(document())
