"""The words for every refusal and failure that a caller can meet.

`detail` is one safe sentence that says what to do. What must stay inside goes into `__cause__`.
`proxy_status` is the error name of RFC 9209 section 2.3; `kind` is the `type` that SDKs read.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import ClassVar, Self


class RelayError(Exception):
    """A failure with a status, a code and one sentence for the caller.

    `why`: for the log's line of the call alone, where callers shall not be told apart.
    """

    status: ClassVar[int] = 500
    code: ClassVar[str] = "internal_error"
    title: ClassVar[str] = "Something failed inside keyrelay"
    kind: ClassVar[str] = "api_error"
    proxy_status: ClassVar[str] = "proxy_internal_error"
    retry_helps: ClassVar[bool] = False

    def __init__(
        self,
        detail: str,
        *,
        members: Mapping[str, str] | None = None,
        fields: tuple[tuple[bytes, bytes], ...] = (),
        param: str | None = None,
        retry_after: int | None = None,
    ) -> None:
        super().__init__(detail)
        self.detail = detail
        self.members: Mapping[str, str] = members or {}
        self.fields = fields
        self.param = param
        self.retry_after = retry_after
        self.why = ""

    def because(self, why: object) -> Self:
        """The same, with what the log alone shall hear."""
        self.why = str(why)
        return self

    @property
    def remark(self) -> str:
        """The detail as the command line says things: without a capital and a full stop."""
        return self.detail[:1].lower() + self.detail[1:].rstrip(".")


class CallerGone(Exception):
    """The caller hung up: nobody is left to be answered."""


class InternalError(RelayError):
    """A fault of ours: the log has the cause under the request id."""

    retry_helps = True


class BadCall(RelayError):
    """The request target can't be read as a call."""

    status = 400
    code = "bad_call"
    title = "The call can't be read"
    kind = "invalid_request_error"
    proxy_status = "http_request_error"


class BadDestination(BadCall):
    """The URL of `server` breaks the strict syntax."""

    code = "bad_destination"
    title = "The destination is not a plain URL"


class AmbiguousService(BadCall):
    """Several services fit the host; the caller must name one."""

    code = "ambiguous_service"
    title = "Several services fit this destination"


class BadRequest(BadCall):
    """The request itself (its fields, its framing) is not acceptable."""

    code = "bad_request"
    title = "The request is malformed"


class Unauthorized(RelayError):
    """No token, or none that is good: one answer for every reason (RFC 9110 section 15.5.2)."""

    status = 401
    code = "unauthorized"
    title = "A platform token is needed"
    kind = "authentication_error"
    proxy_status = "http_request_denied"


class Forbidden(RelayError):
    """The caller is known and may not do this."""

    status = 403
    code = "forbidden"
    title = "This token may not do that"
    kind = "permission_error"
    proxy_status = "http_request_denied"


class KeyMissing(Forbidden):
    """No key for the service in the vault yet."""

    code = "key_missing"
    title = "There is no key for this service yet"


class DestinationRefused(Forbidden):
    """No key and no call may go there."""

    code = "destination_refused"
    title = "Nothing may be sent to this destination"


class DestinationAddressProhibited(DestinationRefused):
    """The name resolves to an address that is not for callers."""

    code = "destination_ip_prohibited"
    title = "The destination's address is not allowed"
    proxy_status = "destination_ip_prohibited"


class NotFound(RelayError):
    """No such route."""

    status = 404
    code = "not_found"
    title = "There is nothing here"
    kind = "invalid_request_error"
    proxy_status = "http_request_error"


class UnknownService(NotFound):
    """No service of that name is known."""

    code = "unknown_service"
    title = "No service has this name"


class MethodNotAllowed(RelayError):
    """CONNECT and TRACE are never forwarded."""

    status = 405
    code = "method_not_allowed"
    title = "This method is not forwarded"
    kind = "invalid_request_error"
    proxy_status = "http_request_denied"


class Conflict(RelayError):
    """What is there already, or is owned by the configuration file, stands in the way."""

    status = 409
    code = "conflict"
    title = "Something that is there stands in the way"
    kind = "invalid_request_error"
    proxy_status = "http_request_error"


class UnsupportedContent(RelayError):
    """The body is of a kind that is not read here."""

    status = 415
    code = "unsupported_content"
    title = "A body of this type is not read here"
    kind = "invalid_request_error"
    proxy_status = "http_request_error"


class Unacceptable(RelayError):
    """The request can be read; what it asks for can't be done."""

    status = 422
    code = "unacceptable"
    title = "What was sent is not acceptable"
    kind = "invalid_request_error"
    proxy_status = "http_request_error"


class BodyTooLarge(RelayError):
    """The request's body is above the limit."""

    status = 413
    code = "body_too_large"
    title = "The request's body is too large"
    kind = "invalid_request_error"
    proxy_status = "http_request_error"


class TooManyRequests(RelayError):
    """A limit of the token or of its tenant has no room for this call now (RFC 6585 section 4)."""

    status = 429
    code = "rate_limited"
    title = "Too many calls in this time"
    kind = "rate_limit_error"
    proxy_status = "http_request_denied"
    retry_helps = True


class BudgetSpent(TooManyRequests):
    """The token's upstream calls of this month are used up."""

    code = "budget_spent"
    title = "The budget of this month is spent"
    retry_helps = False


class TooManyGuesses(TooManyRequests):
    """Too many wrong tokens came from the caller's address."""

    code = "too_many_wrong_tokens"
    title = "Too many wrong tokens from this address"


class CallsSpent(TooManyRequests):
    """A token has made as many calls as it may in all."""

    code = "calls_spent"
    title = "The calls of this token are made"
    retry_helps = False


class RequestTooSlow(RelayError):
    """The caller paused too long in the middle of its request (RFC 9110 section 15.5.9)."""

    status = 408
    code = "request_too_slow"
    title = "The request took too long to arrive"
    kind = "invalid_request_error"
    proxy_status = "http_request_error"
    retry_helps = True


class HeaderTooLarge(RelayError):
    """The request's target or header is above the limit."""

    status = 431
    code = "header_too_large"
    title = "The request's header is too large"
    kind = "invalid_request_error"
    proxy_status = "http_request_error"


class WebSocketUnsupported(RelayError):
    """Upgrades are not built."""

    status = 501
    code = "websocket_unsupported"
    title = "WebSocket connections are not forwarded"
    kind = "invalid_request_error"
    proxy_status = "http_upgrade_failed"


class UpstreamError(RelayError):
    """The destination could not be reached or broke the protocol."""

    status = 502
    code = "upstream_error"
    title = "The destination broke the protocol"
    proxy_status = "http_protocol_error"
    retry_helps = True


class UpstreamUnreachable(UpstreamError):
    """The connection to the destination was refused or broke."""

    code = "upstream_unreachable"
    title = "The destination can't be reached"
    proxy_status = "connection_refused"


class UpstreamNameError(UpstreamError):
    """The destination's name does not resolve."""

    code = "upstream_name_error"
    title = "The destination's name does not resolve"
    proxy_status = "dns_error"


class UpstreamTlsError(UpstreamError):
    """The destination's certificate or TLS is not acceptable."""

    code = "upstream_tls_error"
    title = "The destination's certificate is not acceptable"
    proxy_status = "tls_certificate_error"
    retry_helps = False


class UpstreamIncomplete(UpstreamError):
    """The destination hung up before its answer was whole."""

    code = "upstream_incomplete"
    title = "The destination's answer was cut"
    proxy_status = "http_response_incomplete"


class RedirectRefused(UpstreamError):
    """The destination redirects to a place that this grant does not cover."""

    code = "redirect_refused"
    title = "The destination redirects elsewhere"
    proxy_status = "http_request_denied"
    retry_helps = False


class AnswerTooLarge(UpstreamError):
    """The destination's answer is above the limit."""

    code = "answer_too_large"
    title = "The destination's answer is too large"
    proxy_status = "http_response_body_size"
    retry_helps = False


class Unavailable(RelayError):
    """keyrelay can't take the call now."""

    status = 503
    code = "unavailable"
    title = "keyrelay can't take this call now"
    proxy_status = "proxy_internal_response"
    retry_helps = True


class Overloaded(Unavailable):
    """As many calls are under way as may be, and this one has waited long enough."""

    code = "overloaded"
    title = "Too many calls are under way"
    proxy_status = "connection_limit_reached"


class TooManyConnections(Unavailable):
    """There are as many connections as may be, in all or of one address."""

    code = "too_many_connections"
    title = "There are too many connections"
    proxy_status = "connection_limit_reached"


class UpstreamTimeout(RelayError):
    """The destination did not answer in time."""

    status = 504
    code = "upstream_timeout"
    title = "The destination did not answer in time"
    proxy_status = "http_response_timeout"
    retry_helps = True


class UpstreamNameTimeout(UpstreamTimeout):
    """The destination's name was not resolved in time."""

    code = "upstream_name_timeout"
    title = "The destination's name was not resolved in time"
    proxy_status = "dns_timeout"


class UpstreamConnectTimeout(UpstreamTimeout):
    """No connection to the destination came about in time."""

    code = "upstream_connect_timeout"
    title = "The destination could not be connected to in time"
    proxy_status = "connection_timeout"


class CallTimeout(RelayError):
    """The caller's own deadline has passed."""

    status = 504
    code = "call_timeout"
    title = "The call took longer than its caller allows"
    proxy_status = "http_response_timeout"
    retry_helps = True


class LoopDetected(RelayError):
    """The request has come through this install too often."""

    status = 508
    code = "loop_detected"
    title = "The call runs in a circle"
    proxy_status = "proxy_loop_detected"
