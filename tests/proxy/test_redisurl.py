"""The URL of a Redis: every form of it, and no password in what is said."""

from __future__ import annotations

import pytest

from proxy.redisurl import Place

PASSWORD = "open-sesame"


@pytest.mark.parametrize(
    ("url", "described"),
    [
        ("redis://127.0.0.1", "redis://127.0.0.1:6379"),
        (f"redis://me:{PASSWORD}@cache.team:6380/2", "redis://cache.team:6380"),
        (f"rediss://:{PASSWORD}@cache.team/1?ssl_ca_certs=ca.pem", "rediss://cache.team:6379"),
        ("redis://[::1]:6380", "redis://[::1]:6380"),
        ("unix:///run/redis.sock", "unix:///run/redis.sock"),
        (f"unix://me:{PASSWORD}@/run/redis.sock?db=2", "unix:///run/redis.sock"),
        (
            f"redis+sentinel://me:{PASSWORD}@one,two:26380/main/3",
            "redis+sentinel://one:26379,two:26380",
        ),
        (f"rediss+cluster://:{PASSWORD}@one:7000,two", "rediss+cluster://one:7000,two:6379"),
    ],
)
def test_a_url_is_described_without_its_password(url: str, described: str) -> None:
    """Where it is, and nothing else."""
    place = Place.of(url)
    assert place.described == described
    assert PASSWORD not in repr(place)


def test_sentinels_are_asked_for_a_master_and_its_database() -> None:
    """Percent-encoded octets of a password are decoded once."""
    place = Place.of("rediss+sentinel://me:p%2Fw@one:1,two:2/main/3")
    assert (place.nodes, place.master, place.database) == ((("one", 1), ("two", 2)), "main", 3)
    assert (place.user, place.password, place.tls) == ("me", "p/w", True)


@pytest.mark.parametrize(
    ("url", "expected"),
    [
        ("127.0.0.1:6379", "expected redis://HOST:PORT"),
        ("redis+ring://one", "expected redis://HOST:PORT"),
        ("redis://", "expected redis://HOST:PORT"),
        (f"redis://:{PASSWORD}@one:99999", "expected a port"),
        ("redis+sentinel://one:2", "expected the name of the master"),
        ("redis+cluster://one:99999", "expected a port"),
        (f"redis+cluster://:{PASSWORD}@,one", "expected HOST:PORT"),
        (f"redis+sentinel://:{PASSWORD}@one/main/x", "expected the number"),
        (f"redis://:{PASSWORD}@one/x", "expected the number"),
        (f"redis://:{PASSWORD}@one,two", "expected one host"),
        (f"redis://:{PASSWORD}@one:0", "expected a port"),
        (f"redis+cluster://:{PASSWORD}@one/1", "expected nothing behind"),
        (f"redis://:{PASSWORD}@one?db=1", "expected nothing behind the \\?"),
        (f"rediss://:{PASSWORD}@one?password={PASSWORD}", "expected ssl_ca_certs, ssl_certfile"),
        (f"unix://:{PASSWORD}@host/run", "expected unix:///PATH"),
        ("unix+sentinel:///run", "expected redis://HOST:PORT"),
    ],
)
def test_another_url_is_refused_in_a_sentence(url: str, expected: str) -> None:
    """Which does not show it."""
    with pytest.raises(ValueError, match=expected) as refused:
        Place.of(url)
    assert PASSWORD not in str(refused.value)


def test_who_comes_stands_in_the_url() -> None:
    """As redis-py wants it: to Redis, and to sentinels that know other users."""
    more = "ssl_ca_certs=ca.pem&sentinel_username=s&sentinel_password=p%40q"
    place = Place.of(f"rediss+sentinel://me:{PASSWORD}@one/main?{more}")
    assert place.login == {"username": "me", "password": PASSWORD, "ssl_ca_certs": "ca.pem"}
    assert place.sentinel_login == {
        "username": "s",
        "password": "p@q",
        "ssl": True,
        "ssl_ca_certs": "ca.pem",
    }
    assert Place.of("redis://one").login == {"username": None, "password": None}
    socket = Place.of(f"unix://me:{PASSWORD}@/run/a%20b.sock?db=2")
    assert (socket.path, socket.database, socket.user) == ("/run/a b.sock", 2, "me")
