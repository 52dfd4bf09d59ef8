"""URLs to targets: the vectors, one canonical form, and agreement with parsers of others."""

from __future__ import annotations

import ipaddress
import unicodedata
from pathlib import Path
from urllib.parse import urlsplit

import httpx
import pytest
import yaml
import yarl
from hypothesis import example, given, settings
from hypothesis import strategies as st

from proxy.destinations import (
    DEFAULT_PORTS,
    MAX_OCTETS,
    Target,
    parse_destination,
    parse_registration,
    path_is_plain,
    query_parameter,
    reachable,
    without_parameters,
)
from proxy.errors import BadDestination
from vault import Binding

VECTORS = yaml.safe_load((Path(__file__).parent.parent / "vectors/destinations.yaml").read_text())


@pytest.mark.parametrize("vector", VECTORS, ids=lambda vector: vector["name"])
def test_vector(vector: dict[str, str]) -> None:
    """Each rule of the strict syntax, as the vector's reason says."""
    if "says" in vector:
        with pytest.raises(BadDestination) as refusal:
            parse_destination(vector["url"])
        assert refusal.value.status == 400
        assert vector["says"] in refusal.value.detail
    else:
        target = parse_destination(vector["url"])
        assert target.url == vector["canonical"]
        assert parse_destination(target.url) == target


def test_vectors_have_names_of_their_own_and_reasons() -> None:
    """A vector that nobody can explain or find is none."""
    names = [vector["name"] for vector in VECTORS]
    assert len(set(names)) == len(names)
    assert all(vector["why"] for vector in VECTORS)


def test_parts_of_a_target() -> None:
    """What goes into the request line and Host (RFC 9112 section 3.2.1, RFC 9110 section 7.2)."""
    target = parse_destination("http://[2001:DB8::1]:8080/a?b")
    assert target == Target("http", "2001:db8::1", 8080, "/a", "b")
    assert (target.authority, target.origin_form) == ("[2001:db8::1]:8080", "/a?b")
    assert parse_destination("https://x.test").origin_form == "/"


def test_length_counts_octets_before_and_after() -> None:
    """At most 8192 octets, as given and in canonical form."""
    url = "https://x.test/"
    longest = url + "a" * (MAX_OCTETS - len(url))
    assert parse_destination(longest).url == longest
    grows = "https://x.test?" + "a" * (MAX_OCTETS - len(url))
    for refused in (longest + "a", grows, url + "ü" * (MAX_OCTETS // 2), "https://" + "ü" * 5000):
        with pytest.raises(BadDestination, match="octets"):
            parse_destination(refused)


def test_a_host_has_at_most_253_octets() -> None:
    """RFC 1035 section 2.3.4, less the root."""
    longest = ".".join(["a" * 49] * 5) + ".tst"
    assert len(longest) == 253
    assert parse_destination(f"https://{longest}/").host == longest
    assert parse_destination(f"https://{longest.upper()}/").host == longest
    for refused in ("a" + longest, "ü" * 300, "ü" + "a" * 60 + ".test"):
        with pytest.raises(BadDestination):
            parse_destination(f"https://{refused}/")


@pytest.mark.parametrize(
    ("url", "sentence"),
    [
        ("x.test/", "must be a whole URL that begins with https:// or http://."),
        ("https://x.test/é", "'s path and query must be ASCII: percent-encode what is not."),
        ("https://x.test/a\\b", "must not hold a backslash: write / instead."),
        (
            "https://x.test/#a",
            "must not hold a #: leave a fragment away, write # as %23.",
        ),
        ("https://x.test/ ", "must not hold spaces, control or format characters: encode them."),
        (
            "https://\u200b.test/",
            "must not hold spaces, control or format characters: encode them.",
        ),
        ("https://u@x.test/", "must not hold a user name or password before its host."),
        ("https://%61.test/", "'s host and port must not be percent-encoded."),
        ("https://[::1/", "'s IPv6 address must stand in brackets, without a zone."),
        ("https://[1::2::3]/", "'s host is not an IPv6 address."),
        (
            "https://x.test:0/",
            "'s port must be a number from 1 to 65535 without sign or leading zero.",
        ),
        ("https://x.test./", "'s host must not end with a dot."),
        ("https://-x.test/", "'s host is not a well-formed name."),
        ("https://1.2.3/", "'s IPv4 address must be four decimal numbers without leading zeros."),
        (
            "https://ａ.test/",
            "'s international host is not in its plain form: write its xn-- form.",
        ),
        ("https://x.test/%", "'s path or query holds a % without two hexadecimal digits behind it"),
        ("https://x.test/?" + "a" * 8192, " is longer than 8192 octets: shorten the URL."),
        ("https://x.test/\\" + "a" * 8177, " is longer than 8192 octets: shorten the URL."),
    ],
)
def test_a_refusal_says_what_is_wrong_and_what_to_do(url: str, sentence: str) -> None:
    """In whole sentences, for whoever wrote the URL."""
    with pytest.raises(BadDestination) as refusal:
        parse_destination(url)
    between = "" if sentence[0] in "' " else " "
    assert refusal.value.detail.startswith(f"The destination{between}{sentence}")
    assert refusal.value.detail.endswith(sentence) or "%25" in refusal.value.detail


def test_refusals_never_repeat_the_url() -> None:
    """A key may stand in its userinfo, path or query."""
    secret = "sk-0123456789abcdef"
    for url in (f"https://{secret}@x.test/", f"https://x.test/{secret}%", f"{secret}://x.test"):
        with pytest.raises(BadDestination) as refusal:
            parse_destination(url)
        assert secret not in refusal.value.detail


# -- registrations --------------------------------------------------------------------------------


def test_a_registration_is_a_place() -> None:
    """Scheme, host, port and path prefix, canonical."""
    assert parse_registration("HTTPS://API.x.test") == Binding("https", "api.x.test", 443, "/")
    assert parse_registration("http://[::1]:8080/a/") == Binding("http", "::1", 8080, "/a/")


@pytest.mark.parametrize("tail", ["?", "?a=b", "a%2Fb", "a%5cb", "%25", "a;b", "a//b", "/"])
def test_a_registration_has_no_query_and_a_plain_path(tail: str) -> None:
    """A prefix that servers read differently would cover more than it says."""
    with pytest.raises(BadDestination) as refusal:
        parse_registration(f"https://x.test/{tail}")
    assert refusal.value.detail == (
        "A registered place has no query: leave the ? and what follows away."
        if "?" in tail
        else "A registered path must not hold %2F, %5C, %25, a semicolon or //."
    )


def test_what_is_never_dialled_can_not_be_registered() -> None:
    """Link-local, multicast and unspecified addresses; a name is judged when it is resolved."""
    for url in ("http://127.0.0.1:9/", "http://10.0.0.1/", "https://x.test/"):
        place = parse_registration(url)
        assert reachable(place) is place
    with pytest.raises(BadDestination) as refusal:
        reachable(parse_registration("http://169.254.1.1/"))
    assert refusal.value.detail == (
        "Nothing is ever sent to this address (link-local): "
        "register a public, private or loopback one."
    )


def test_what_is_registered_is_covered() -> None:
    """The text of a place leads back to it."""
    place = parse_registration("https://x.test:8443/a")
    assert parse_registration(str(place)) == place
    inside = parse_destination("https://X.test:8443/a/b?c")
    assert place.covers(inside.scheme, inside.host, inside.port, inside.path)


@pytest.mark.parametrize(
    ("path", "plain"),
    [
        ("/", True),
        ("/a/b/", True),
        ("/a%20b", True),
        ("/a%2fb", False),
        ("/a%5Cb", False),
        ("/%252e", False),
        ("/a;b", False),
        ("//a", False),
        ("/a//", False),
    ],
)
def test_plain_paths(path: str, plain: bool) -> None:
    """Contract section 4: what is 403 below a prefix."""
    assert path_is_plain(path) is plain


# -- parameters -----------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("query", "value"),
    [
        (None, None),
        ("", None),
        ("a=1", None),
        ("key=a%20b+c", "a b+c"),
        ("a=1&k%65y=x=y", "x=y"),
        ("key", ""),
        ("key=1&key=2", "1"),
        ("Key=1", None),
        ("key=%FF", "\ufffd"),
    ],
)
def test_reading_one_parameter(query: str | None, value: str | None) -> None:
    """Names and values are decoded once; case counts."""
    assert query_parameter(query, "key") == value
    assert query_parameter(None, "XXXX") is None


@pytest.mark.parametrize(
    ("query", "left"),
    [
        (None, None),
        ("", ""),
        ("key=1", None),
        ("k%65y=1&KEY=2&a=%6b+&&b", "KEY=2&a=%6b+&&b"),
        ("a=key&key&key=&sig=3", "a=key"),
        ("k%2565y=1", "k%2565y=1"),
    ],
)
def test_removing_parameters(query: str | None, left: str | None) -> None:
    """What is left is left octet for octet."""
    assert without_parameters(query, {"key", "sig"}) == left


@given(st.lists(st.tuples(st.sampled_from(["key", "k%65y", "a", "b%20", ""]), st.text("=%2a+"))))
@settings(max_examples=100, deadline=None)
def test_a_removed_parameter_can_not_be_read(pairs: list[tuple[str, str]]) -> None:
    """Removing and reading see the same names."""
    left = without_parameters("&".join(f"{name}={value}" for name, value in pairs), {"key"})
    assert query_parameter(left, "key") is None


# -- other parsers --------------------------------------------------------------------------------

hosts = st.one_of(
    st.sampled_from(
        [
            *(
                "api.openai.com",
                "API.x.test",
                "a_b",
                "xn--mnchen-3ya.test",
                "münchen.test",
                "ß.test",
            ),
            *("127.0.0.1", "127.1", "0x7f.1", "1.2.3.04", "[::1]", "[::ffff:1.2.3.4]", "[1::%251]"),
            *(
                "x.test.",
                "x..test",
                "",
                "１２.test",
                "ａ.test",
                "a。b",
                "日本.test",
                "K.test",
                "ΑΣ.test",
            ),
            *("[2001:DB8::0:1]", "[::]", "[fe80::1]", "-a.test", "9.test", "x.9", "*.test"),
        ]
    ),
    st.text("abcXYZ019.-_%[]:@ßüσςé\u0301", max_size=12),
)
ports = st.sampled_from(
    ["", ":", ":443", ":80", ":8080", ":0", ":0443", ":+443", ":65535", ":65536", ":４４３", ":1:2"]
)
rests = st.lists(
    st.sampled_from(
        [
            *("/", "//", "?", "#", "\\", "@", ":", ".", "..", "%2e", "%2F", "%5C", "%", "%zz", ";"),
            *("a", "é", "\t", "\n", " ", "\0", "\u200b", "{", "&", "=", "+", "https://y.test/"),
        ]
    ),
    max_size=6,
).map("".join)
urls = st.builds(
    lambda scheme, user, host, port, rest: scheme + user + host + port + rest,
    st.sampled_from(["https://", "http://", "HTTPS://", "https:/", "https:", "//", "ftp://"]),
    st.sampled_from(["", "", "", "", "u@", "u:p@", "api.openai.com@"]),
    hosts,
    ports,
    rests,
)


def canonical_host(host: str | None) -> str:
    """A host as another parser gives it, its IP address in the one form of this test."""
    try:
        return str(ipaddress.ip_address(host or ""))
    except ValueError:
        return host or ""


@given(st.one_of(urls, st.text(max_size=40).map(lambda text: "https://" + text)))
@example("https://x.test:+443/")
@example("http://[::ffff:1.2.3.4]:80/")
@settings(max_examples=200, deadline=None)
def test_whatever_is_accepted_others_read_alike(url: str) -> None:
    """Scheme, host, port, path and query: httpx, yarl and urllib see the same call."""
    try:
        target = parse_destination(url)
    except BadDestination:
        return
    assert parse_destination(target.url) == target
    wanted = (target.scheme, canonical_host(target.host), target.port)
    composed = unicodedata.normalize("NFC", url)  # httpx composes no host by itself
    theirs, split, other = httpx.URL(composed), urlsplit(target.url), yarl.URL(url)
    port = theirs.port or DEFAULT_PORTS[theirs.scheme]
    assert (theirs.scheme, canonical_host(theirs.raw_host.decode()), port) == wanted
    port = split.port or DEFAULT_PORTS[split.scheme]
    assert (split.scheme, canonical_host(split.hostname), port) == wanted
    assert (split.path, split.query) == (target.path, target.query or "")
    assert (other.scheme, canonical_host(other.raw_host), other.port) == wanted


@given(st.text(max_size=60))
@example("https://" + "ü" * 70)
@example("https://xn--/")
@settings(max_examples=150, deadline=None)
def test_any_text_is_read_or_refused(text: str) -> None:
    """Never an exception but BadDestination, and nothing but ASCII comes out."""
    for url in (text, "https://" + text, "https://x.test/" + text):
        try:
            assert parse_destination(url).url.isascii()
        except BadDestination as refusal:
            assert refusal.detail.endswith(".")
