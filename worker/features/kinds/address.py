"""Fields that hold addresses of the Internet Protocol."""

import re
import socket
from collections import Counter
from collections.abc import Callable, Sequence, Set
from dataclasses import dataclass
from functools import lru_cache
from random import Random
from typing import Any, NamedTuple

import numpy as np
from typing_extensions import override

from worker.features.kinds.base import Column, Failures, Field
from worker.features.kinds.evidence import Evidence, Sample, Strength
from worker.features.kinds.options import TEXTS, Check, option, size
from worker.features.learned import ADDRESS_KIND, CategoryColumn, FieldStats, NumericColumn
from worker.features.paths import NotAnObject
from worker.features.values import MISSING
from worker.records import FloatArray, TimeArray
from worker.redaction import Pseudonym

MAX_ADDRESS = 64  # characters of an address with its port or prefix
MIN_RECORDS = 5  # of an address that is a category of its own; the others are one with their network
USUAL_NOVELTY = 0.01  # share of records with a network that no other record has; from there on a new one is usual
VERSION_6, PUBLIC, LOCAL, MULTICAST = 1, 2, 4, 8

_MAPPED = b"\0" * 10 + b"\xff\xff"  # begins an address of version 4 that is written as one of version 6
_PARTS = re.compile(
    r"\[(?P<boxed>[0-9a-fA-F:.]+)(?:%\w+)?\](?::\d{1,5})?"
    r"|(?P<four>\d{1,3}(?:\.\d{1,3}){3})(?::\d{1,5}|/\d{1,2})?"
    r"|(?P<six>[0-9a-fA-F:.]*:[0-9a-fA-F:.]*)(?:%\w+)?(?:/\d{1,3})?",
    re.ASCII,
)


class _Known(NamedTuple):
    """An address as it is compared, the network that it lies in, and the sum of what it is."""

    address: str
    network: str
    flags: int


def _bits(maximum: int) -> Check:
    expected = f"a whole number of bits, from 1 to {maximum}"
    return Check(expected, lambda value: type(value) is int and 1 <= value <= maximum)


@dataclass(frozen=True)
class Address(Field):
    """An IP address, also with a port or a prefix, which don't count.

    The model sees four numbers of 0 or 1, whether it is of version 6, public, local to a host or a link, or multicast,
    and a category: an address that at least 5 records of the fit have is one of its own, any other one is that of its
    network, and one whose network no record of the fit had was never seen before. So new hosts stand out where hosts
    are known, and only new networks where addresses hardly repeat. Where more than 1% of the records have a network of
    their own, as of visitors of a public site, a new network counts as a rare one. It works badly where networks are
    shared by all sorts, as those of large providers are.

    prefix_v4, prefix_v6   bits of an address that name its network
    max_values             size of the vocabulary; rarer networks share one id
    missing                strings that stand for no value; None = those of worker.features.values.MISSING

    >>> address = Address("src")
    >>> column, _ = address.read(["10.7.1.2:443", "2001:db8::1"])
    >>> address.categories(column)
    [('10.7.1.2', '10.7.0.0/16'), ('2001:db8::1', '2001:db8::/32')]
    """

    kind, accepts, expected = ADDRESS_KIND, frozenset({str, list}), "an IP address"
    parts = ("version_6", "public", "local", "multicast")
    anomaly = "unseen_category"
    usual_gaps = MISSING

    prefix_v4: int = option(16, _bits(32))
    prefix_v6: int = option(32, _bits(128))
    max_values: int = option(1024, size(1))
    missing: tuple[str, ...] | None = option(None, TEXTS)

    @classmethod
    @override
    def infer(cls, sample: Sample) -> Evidence | None:
        present = sample.present
        if present.types != {str} or not all(_read(value, 16, 32) for value in present.values):
            return None
        return Evidence(Strength.FORM, "IP addresses")

    @override
    def parse(self, column: Column) -> tuple[TimeArray, Failures]:
        flags, failures = np.zeros(len(column.values), np.int64), Failures()
        for index, value in enumerate(column.values):
            if value is None:
                continue
            known = self._known(value)
            if known is None:
                failures[index] = self.wrong_type(value)
            else:
                flags[index] = known.flags
        return flags, failures

    @override
    def numbers(self, column: Column) -> list[FloatArray]:
        return [(column.numbers & flag != 0).astype(np.float64) for flag in (VERSION_6, PUBLIC, LOCAL, MULTICAST)]

    @override
    def categories(self, column: Column) -> Sequence[Any]:
        known = (None if value is None else self._known(value) for value in column.values)
        return [None if entry is None else entry[:2] for entry in known]

    @override
    def tokens(self, column: Column, token: Callable[[Any], str]) -> Sequence[Any]:
        pairs = self.categories(column)
        return [None if pair is None else tuple(self.token(name, token) for name in pair) for pair in pairs]

    @override
    def vocabulary_limit(self) -> tuple[int | None, int]:
        return self.max_values, 0

    @override
    def fit_categories(self, categories: Sequence[Any]) -> CategoryColumn | None:
        pairs = Counter(pair for pair in categories if pair is not None)
        counts = Counter[str]()
        for (address, network), rows in pairs.items():
            counts[address if rows >= MIN_RECORDS else network] += rows
        single = {name for name, rows in counts.items() if rows == 1}
        is_open = len(single) > USUAL_NOVELTY * pairs.total()
        names = counts.keys() - (single if is_open else ())
        ranked = sorted(names, key=lambda name: (-counts[name], name))
        spare = int(is_open or len(ranked) > self.max_values)
        return CategoryColumn(self.name, self.kind, tuple(ranked[: self.max_values]), spare)

    @override
    def statistics(self, column: Column, vocabulary: CategoryColumn | None) -> FieldStats:
        return FieldStats(self.name, top=vocabulary.values[0] if vocabulary is not None and vocabulary.values else None)

    @override
    def conceal(self, column: Column, columns: Sequence[NumericColumn], token: Callable[[Any], str]) -> Sequence[Any]:
        """Of an address the pseudonyms of itself and of its network, with what it is in place of the first's length."""
        rows = []
        for value in column.values:
            known = None if value is None else self._known(value)
            if known is None or type(value) is list:
                rows.append(value)
            else:
                address, network, flags = known
                rows.append([Pseudonym(f"{token(address)}:{flags}"), Pseudonym(f"{token(network)}:0")])
        return rows

    @override
    def compared(self, values: Sequence[Any]) -> Sequence[Any]:
        """The networks."""
        return [None if pair is None else pair[1] for pair in self.categories(self.read(values)[0])]

    @override
    def can_plant(self, value: Any) -> bool:
        return type(value) is str

    @override
    def plant(self, value: Any, rng: Random) -> str:
        return ".".join(str(rng.randrange(11, 100)) for _ in range(4))

    @override
    def refused(self, types: Set[type]) -> Set[type]:
        return types - {str, list} | types & {NotAnObject}

    def _known(self, value: Any) -> _Known | None:
        if type(value) is not list:
            return _read(value, self.prefix_v4, self.prefix_v6)
        if len(value) != 2 or set(map(type, value)) != {Pseudonym}:
            return None
        return _Known(value[0], value[1], value[0].length)


@lru_cache(maxsize=1 << 16)
def _read(text: str, prefix_v4: int, prefix_v6: int) -> _Known | None:
    """What is known of an address; None where a text is none."""
    if len(text) > MAX_ADDRESS or "\0" in text:
        return None
    try:
        packed = socket.inet_pton(socket.AF_INET, text)  # as most: no more than digits and dots
    except (OSError, UnicodeEncodeError):
        packed = _packed(text)
    if len(packed) == 4:
        place = int.from_bytes(packed, "big")
        address = f"{packed[0]}.{packed[1]}.{packed[2]}.{packed[3]}"
        return _Known(
            address, _network(4, place >> (32 - prefix_v4), prefix_v4), _flags_v4(packed[0], packed[1], place)
        )
    if len(packed) == 16:
        network = _network(16, int.from_bytes(packed, "big") >> (128 - prefix_v6), prefix_v6)
        return _Known(socket.inet_ntop(socket.AF_INET6, packed), network, VERSION_6 | _flags_v6(packed))
    return None


def _packed(text: str) -> bytes:
    """The bytes of an address that may have a port or a prefix; none where a text is no address."""
    match = _PARTS.fullmatch(text.strip())
    if match is None:
        return b""
    family = socket.AF_INET if match["four"] else socket.AF_INET6
    try:
        packed = socket.inet_pton(family, match["four"] or match["boxed"] or match["six"])
    except OSError:
        return b""
    return packed.removeprefix(_MAPPED)


@lru_cache(maxsize=1 << 12)
def _network(size: int, beginning: int, bits: int) -> str:
    packed = (beginning << (8 * size - bits)).to_bytes(size, "big")
    return f"{socket.inet_ntop(socket.AF_INET if size == 4 else socket.AF_INET6, packed)}/{bits}"


def _flags_v4(first: int, second: int, place: int) -> int:
    if first in (0, 127) or (first == 169 and second == 254):
        return LOCAL
    if 224 <= first <= 239 or place == 0xFFFF_FFFF:
        return MULTICAST  # and broadcast
    is_private = first == 10 or (first == 192 and second == 168) or (first == 172 and 16 <= second <= 31)
    return 0 if is_private or (first == 100 and 64 <= second <= 127) else PUBLIC  # 100.64/10: behind a provider


def _flags_v6(packed: bytes) -> int:
    if int.from_bytes(packed, "big") <= 1 or (packed[0] == 0xFE and 0x80 <= packed[1] <= 0xBF):
        return LOCAL
    if packed[0] == 0xFF:
        return MULTICAST
    return 0 if packed[0] & 0xFE == 0xFC else PUBLIC
