"""URLs of every kind, good and bad, from a seed; a million of them are read and compared.

python -m tests.fuzz.urls [HOW_MANY] [SEED]
"""

from __future__ import annotations

import random
import sys
from collections import Counter
from collections.abc import Callable, Iterator
from ipaddress import IPv4Address, IPv6Address
from typing import Final

from tests.fuzz.readers import compare

_LETTERS: Final = "abcxyzABXK0189-_"
# Letters of hosts that parsers map, drop, join, compare or take for dots and digits.
_ODD: Final = (
    "ßẞςσΣüÜéıİſKÅ１２ａＡ①²ªﬁ．。｡․…‥／？＃：＠％﹪℀⁄∕\u00ad\u200b\u200c\u200d\u2060\ufeff\u0301"
    "\u0308\u0378\u180e\u202e\u3164\U0001f600\U00010400\U0002f800日本אب٣०"
)
# What is well-formed, and what isn't or looks like it.
_Parts = tuple[tuple[str, ...], tuple[str, ...]]
_SCHEMES: Final[_Parts] = (
    ("https://", "http://", "HTTPS://", "hTTp://"),
    ("https:/", "https:", "https:///", "//", "", "ftp://", "https:\\\\", " https://", "http\t://"),
)
_USERS: Final[_Parts] = (
    ("",),
    ("u@", "u:p@", "api.openai.com@", "@", ":@", "u%40x.test@", "x.test:80@"),
)
_PORTS: Final[_Parts] = (
    ("", "", "", ":443", ":80", ":8080", ":65535", ":1"),
    (
        *(":", ":0", ":00", ":0443", ":+443", ":-1", ":65536", ":99999999999", ":４４３", ":1:2"),
        *(":80x", ": 80", ":8_0", ":%38%30"),
    ),
)
_STEPS: Final[_Parts] = (
    (
        *("/", "/a", "/v1", "/A-b_c~", "/x.y", "/...", "/.a", "/a.", "/%20", "/%C3%A9", "/b%2Fc"),
        *("//", "/;a=b", "/%5c", "/%252e%252e", "/%25", "/{a}", "/|", "/^`", '/"<>', "/a:b@c"),
        "/!$'()*,",
    ),
    ("/.", "/..", "/%2e", "/%2E.", "/.%2e/", "\\", "/%", "/%zz", "/%0a", "/%00", "/é", "/ ", "/\t"),
)
_QUERIES: Final[_Parts] = (
    (
        *("", "", "?", "?a=b", "?a=b&c", "?&&", "?a=%26&b=+", "?a=%0A", "?a?b/c/../d"),
        *("?{}|^`'\"<>", "?a=/../x", "?@x.test/", "?https://y.test/"),
    ),
    ("?a#b", "#", "?%", "?é", "?a b", "?\\", "?a=%00"),
)


class Urls:
    """An endless row of URLs; the same for the same seed."""

    def __init__(self, seed: int) -> None:
        self._random = random.Random(seed)
        self._hosts: tuple[Callable[[], str], ...] = (
            *(self._name, self._name, self._name, self._international, self._international),
            *(self._ipv4, self._ipv4_otherwise, self._ipv6, self._ipv6_otherwise, self._punycode),
            self._noise,
        )

    def __iter__(self) -> Iterator[str]:
        while True:
            yield self.one()

    def one(self) -> str:
        """The next one."""
        host = self._random.choice(self._hosts)()
        steps = "".join(self._pick(_STEPS) for _ in range(self._random.randrange(4)))
        url = self._pick(_SCHEMES) + self._pick(_USERS) + host + self._pick(_PORTS)
        url += steps + self._pick(_QUERIES)
        return self._struck(url) if self._random.random() < 0.1 else url

    def _pick(self, parts: _Parts) -> str:
        """Mostly well-formed."""
        return self._random.choice(parts[self._random.random() < 0.06])

    def _struck(self, url: str) -> str:
        """With one character changed, added or left away."""
        place, ways = self._random.randrange(len(url) + 1), ("", *"/?#@:[]\\.%-\t\n0", *_ODD)
        return url[:place] + self._random.choice(ways) + url[place + self._random.randrange(2) :]

    def _text(self, letters: str, most: int) -> str:
        return "".join(self._random.choices(letters, k=self._random.randint(1, most)))

    def _name(self) -> str:
        labels = [self._text(_LETTERS, 8) for _ in range(self._random.randint(0, 3))]
        return ".".join([*labels, self._random.choice(("test", "com", "1a", "x9", "0x", "9", ""))])

    def _international(self) -> str:
        return ".".join(self._label() for _ in range(self._random.randint(1, 3)))

    def _label(self) -> str:
        anything = [self._character() for _ in range(self._random.randint(0, 2))]
        letters = [*anything, *self._text(_LETTERS + _ODD, 4)]
        self._random.shuffle(letters)
        return "".join(letters)

    def _character(self) -> str:
        """Of the planes that hold letters, surrogates left out."""
        code = self._random.choice((0x250, 0x600, 0x3000, 0xD7FF, 0x1FFFF))
        return chr(self._random.randrange(0x80, code))

    def _punycode(self) -> str:
        octets = self._label().encode("punycode") if self._random.random() < 0.7 else b""
        word = octets.decode() or self._text("abcz019-", 8)
        return self._random.choice(("xn--", "XN--", "xn--", "Xn--xn--")) + word + ".test"

    def _ipv4(self) -> str:
        return str(IPv4Address(self._random.getrandbits(32)))

    def _ipv4_otherwise(self) -> str:
        """As inet_aton and the WHATWG read addresses: octal, hexadecimal, fewer than four parts."""
        parts = [self._number() for _ in range(self._random.randint(1, 5))]
        return ".".join(parts) + self._random.choice(("", "", ".", ".test"))

    def _number(self) -> str:
        value = self._random.choice((0, 1, 7, 8, 127, 255, 256, 65535, 2**24, 2**32 - 1, 2**32))
        forms = (
            f"{value}",
            f"{value}",
            f"0{value:o}",
            f"0x{value:x}",
            f"0X{value:X}",
            f"{value:03}",
        )
        return self._random.choice((*forms, "0x", f"１{value}"))

    def _ipv6(self) -> str:
        return f"[{IPv6Address(self._random.getrandbits(128))}]"

    def _ipv6_otherwise(self) -> str:
        low = self._random.getrandbits(32)
        start = self._random.choice(
            ("::", "::ffff:", "64:ff9b::", "2002:7F00:1::", "fe80::", "::FFFF:0:")
        )
        ends = (
            str(IPv4Address(low)),
            f"{low >> 16:x}:{low & 0xFFFF:04X}",
            "",
            "1%25eth0",
            "g",
            "::1",
        )
        return f"[{start}{self._random.choice(ends)}{self._random.choice((']', ']', ']', ''))}"

    def _noise(self) -> str:
        return self._text("ab.-_:@[]%2e/\\?# \t0１。*'(){}|", 8)


def main(how_many: int, seed: int) -> int:
    """Compares; 1 where a URL is read differently."""
    found: Counter[str] = Counter()
    wrong: list[str] = []
    for _, url in zip(range(how_many), Urls(seed), strict=False):
        target, refused, differing = compare(url)
        found["accepted"] += target is not None
        found.update(f"{name} is refused by the other" for name in refused)
        wrong += [f"{url!r}: {difference}" for difference in differing]
    print(
        f"{how_many:,} URLs of seed {seed}: {found['accepted']:,} accepted,"
        f" {len(wrong)} read otherwise"
    )
    for name, count in sorted(found.items())[1:]:
        print(f"  {name}: {count:,}")
    print(*wrong[:20], sep="\n")
    return 1 if wrong else 0


if __name__ == "__main__":
    given = [int(word) for word in sys.argv[1:]]
    sys.exit(main(given[0] if given else 1_000_000, given[1] if len(given) > 1 else 1))
