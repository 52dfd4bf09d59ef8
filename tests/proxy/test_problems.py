"""Our errors as callers and SDKs read them (contract section 7)."""

from __future__ import annotations

import json

import pytest

from proxy.catalogue import CATALOGUE
from proxy.errors import RelayError, Unauthorized, Unavailable
from proxy.messages import value
from proxy.problems import problem

SDK_TYPES = {
    "authentication_error",
    "permission_error",
    "invalid_request_error",
    "rate_limit_error",
    "api_error",
}
RFC_9209_ERRORS = {
    "dns_timeout",
    "dns_error",
    "destination_not_found",
    "destination_unavailable",
    "destination_ip_prohibited",
    "destination_ip_unroutable",
    "connection_refused",
    "connection_terminated",
    "connection_timeout",
    "connection_read_timeout",
    "connection_write_timeout",
    "connection_limit_reached",
    "tls_protocol_error",
    "tls_certificate_error",
    "tls_alert_received",
    "http_request_error",
    "http_request_denied",
    "http_response_incomplete",
    "http_response_body_size",
    "http_response_timeout",
    "http_upgrade_failed",
    "http_protocol_error",
    "proxy_internal_response",
    "proxy_internal_error",
    "proxy_configuration_error",
    "proxy_loop_detected",
}


@pytest.mark.parametrize("kind", CATALOGUE, ids=lambda kind: kind.code)
def test_every_error_has_both_shapes(kind: type[RelayError]) -> None:
    """RFC 9457, and the member `error` that SDKs print."""
    answer = problem(kind("Do this.", param="service"), "id-1", "/proxy")
    document = json.loads(answer.body)
    assert answer.status == document["status"] == kind.status
    assert document["type"] == f"/errors/{kind.code}"
    assert document["title"] == kind.title
    assert document["detail"] == document["error"]["message"] == "Do this."
    assert document["request_id"] == "id-1"
    assert document["instance"] == "/proxy"
    assert document["error"]["type"] in SDK_TYPES
    assert document["error"]["code"] == kind.code
    assert document["error"]["param"] == "service"
    assert value(answer.fields, b"content-type") == b"application/problem+json"
    assert value(answer.fields, b"content-length") == str(len(answer.body)).encode()
    assert (value(answer.fields, b"x-should-retry") is None) == kind.retry_helps


def test_every_error_is_in_the_catalogue_once() -> None:
    """A code is a promise: one class, one page under /errors/."""

    def below(kind: type[RelayError]) -> set[type[RelayError]]:
        return {kind, *(deep for sub in kind.__subclasses__() for deep in below(sub))}

    assert set(CATALOGUE) == below(RelayError) - {RelayError}
    assert len({kind.code for kind in CATALOGUE}) == len(CATALOGUE)


@pytest.mark.parametrize("kind", CATALOGUE, ids=lambda kind: kind.code)
def test_proxy_status_uses_registered_names(kind: type[RelayError]) -> None:
    """RFC 9209 section 2.3."""
    assert kind.proxy_status in RFC_9209_ERRORS
    line = value(problem(kind("x"), "id").fields, b"proxy-status") or b""
    assert line.startswith(b"keyrelay; error=")


def test_retry_after_is_never_above_a_minute() -> None:
    """SDKs sleep as long as they are told."""
    fields = problem(Unavailable("Later.", retry_after=3600), "id").fields
    assert value(fields, b"retry-after") == b"60"
    assert value(problem(Unavailable("Soon.", retry_after=5), "id").fields, b"retry-after") == b"5"


def test_a_401_says_which_scheme() -> None:
    """RFC 9110 section 11.6.1."""
    assert value(problem(Unauthorized("x"), "id").fields, b"www-authenticate") == b"Bearer"


def test_members_stand_beside_the_rest_and_no_instance_without_a_path() -> None:
    """`location` of a refused redirect."""
    document = json.loads(problem(Unavailable("x", members={"location": "https://a/"}), "id").body)
    assert document["location"] == "https://a/"
    assert "instance" not in document
