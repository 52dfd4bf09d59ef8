"""A call that is over, as those who count and write down are told of it."""

from __future__ import annotations

from proxy.record import CallRecord

CALL = CallRecord(
    id="abc-1",
    began=1_800_000_000.0,
    tenant="default",
    token="laptop",
    token_id="T1",
    service="openai",
    host="api.openai.com",
    method="POST",
    status=200,
    code="",
    verdict="stored",
    cut=False,
    received=10,
    sent=2000,
    seconds=0.25,
    waited=0.05,
    upstream_seconds=0.1,
    meter=None,
    key="default",
    answered=0.16,
)
