"""Backends."""

from __future__ import annotations

import pytest

from tests.vault.conftest import Opener
from tests.vault.words import backend
from vault import AlreadyExists, Backend, Binding, Invalid, NotThere, Vault


async def test_backends_are_kept_in_order(vault: Vault, opener: Opener) -> None:
    """Of registration; for one tenant or all."""
    places = [backend("/b"), backend("/a", tenant="other"), backend("/a")]
    for place in places:
        await vault.add_backend(place)
    again = await opener()
    assert await again.list_backends() == places
    assert await again.list_backends("default") == [places[0], places[2]]
    assert (await again.holdings("default")).backends == (places[0], places[2])


async def test_a_backend_is_registered_once(vault: Vault) -> None:
    """Per tenant, service and place."""
    await vault.add_backend(backend())
    with pytest.raises(AlreadyExists, match=r"http://127\.0\.0\.1:9000/ is a backend for openai"):
        await vault.add_backend(backend())
    for other in (backend("/a"), backend(service="cohere"), backend(tenant="other")):
        await vault.add_backend(other)


async def test_a_removed_backend_is_gone(vault: Vault) -> None:
    """Exactly that one."""
    await vault.add_backend(backend("/a"))
    await vault.add_backend(backend("/b"))
    await vault.remove_backend(backend("/a"))
    assert (await vault.holdings("default")).backends == (backend("/b"),)
    with pytest.raises(NotThere, match="keyrelay backend list"):
        await vault.remove_backend(backend("/a"))


async def test_only_places_of_services_are_stored(vault: Vault) -> None:
    """Names and bindings are checked."""
    for wrong in (
        backend(service="Open AI"),
        Backend("default", "openai", Binding("http", "", 80)),
    ):
        with pytest.raises(Invalid):
            await vault.add_backend(wrong)
