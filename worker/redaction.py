"""What leaves the worker of a record with redacted fields: nothing of their values, by one object.

Whatever is published, written, saved or shown of a record goes through a `Redaction`:

    record        a masked copy: alerts, ids, groups, dead letters
    message       key and headers of what is published, and what open alert groups remember
    dead_letter   the bytes, key and headers of a record that can't be scored
    token         what stands for a category in vocabularies, rehearsal rows and the trainer's state

A name covers the field, everything below it, in arrays, too, and every spelling of its path: `a.b` is the key "a.b" and
the key "b" in "a". Values are compared, not guessed: a value that a record also has in another field stays there.

Hashes are keyed by a secret. Without one, whoever can list the possible values can find those that a hash stands for.
"""

import re
import struct
from base64 import b64encode
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from contextlib import suppress
from dataclasses import replace
from functools import lru_cache
from hashlib import blake2b
from typing import Any, Literal, TypeVar
from urllib.parse import unquote_to_bytes

import orjson

from worker.errors import UsageError
from worker.records import DeadLetter, Headers, Message, RawMessage, member_of

MASK = "[redacted]"
HASHED = "redacted:"  # begins what stands for a key or a category
MAX_DEPTH = 200  # what is nested deeper than a record may be is masked as a whole
MAX_CACHED = 256  # characters of a category whose token is remembered
MIN_PART = 4  # bytes of a value from which on it counts as a part of a key; a shorter one has to be all of it
_PSEUDONYM = re.compile(HASHED + r"[0-9a-f]{32}:[0-9]{1,9}")
KeyRule = Literal["auto", "always", "never"]
M = TypeVar("M", bound=RawMessage)


class Pseudonym(str):
    """A redacted category as it is kept for later fits: `redacted:TOKEN:LENGTH`, the length that of its text."""

    __slots__ = ()

    @classmethod
    def of(cls, token: str, value: Any) -> "Pseudonym":
        """The pseudonym of a value, whose category has this token; of a pseudonym itself."""
        if isinstance(value, cls):
            return value
        return cls(f"{token}:{len(value) if isinstance(value, str) else 0}")

    @property
    def token(self) -> str:
        """Of its category."""
        return self.rpartition(":")[0]

    @property
    def length(self) -> int:
        """Characters of the text that it stands for."""
        return int(self.rpartition(":")[2])


def _plain(name: str) -> str:
    """A path without the brackets of its arrays: what lies in arrays is masked wherever a path leads through them."""
    return name.replace("[]", "")


class Redaction:
    """Masks the values of some fields. Immutable; false where there are none, and then nothing else is asked of it.

    fields         names, dots reach into nested objects
    secret         key of all hashes
    keys           `auto` hashes a key where it holds a redacted value, or where that can't be told: the record can't be
                   read, or has no value in a redacted field; `always` hashes all of them, `never` none
    dead_letters   whether dead letters are masked, too

    >>> hidden = Redaction(["card.number"])
    >>> hidden.record({"card": [{"number": 4711, "kind": "debit"}], "card.number": 4711})
    {'card': [{'number': '[redacted]', 'kind': 'debit'}], 'card.number': '[redacted]'}
    """

    def __init__(
        self, fields: Iterable[str] = (), *, secret: str = "", keys: KeyRule = "auto", dead_letters: bool = True
    ) -> None:
        self.fields = frozenset(fields)
        self._paths = tuple(sorted({*self.fields, *map(_plain, self.fields)}))
        self._options: dict[str, Any] = {"secret": secret, "keys": keys, "dead_letters": dead_letters}
        self._hash_key = blake2b(secret.encode("utf-8", "surrogatepass"), digest_size=32).digest()
        self._token = lru_cache(1 << 16)(self._new_token)
        self._routes = lru_cache(1 << 8)(self._new_routes)  # records of a topic have few shapes

    def __bool__(self) -> bool:
        return bool(self.fields)

    def also(self, fields: Iterable[str]) -> "Redaction":
        """The same with more fields."""
        more = self.fields | set(fields)
        return self if more == self.fields else Redaction(more, **self._options)

    def covers(self, name: str) -> bool:
        """Whether a field is redacted, itself or with what it lies in."""
        return any(_is_below(_plain(name), path) for path in self._paths)

    def touches(self, name: str) -> bool:
        """Whether a field is redacted, or something that lies in it is: of a map that is one field, say, a key."""
        return self.covers(name) or any(_is_below(path, _plain(name)) for path in self._paths)

    def finds(self, row: Mapping[str, Any]) -> bool:
        """Whether a record has one of the fields, in any spelling."""
        return any(True for path in self._paths for _ in _parts(row, path, 0))

    @property
    def check(self) -> str:
        """Tells whether two processes have the same secret."""
        return self._digest(b"check", b"")

    @property
    def mark(self) -> str:
        """Tells whether what was saved was masked by the same fields and settings; empty without fields."""
        return self._digest(b"mark", repr((self._paths, self._options["keys"])).encode()) if self else ""

    def record(self, row: dict[str, Any]) -> dict[str, Any]:
        """A copy with a mark in place of all redacted values, or the row; groups and silences compare the values."""
        if not self:
            return row
        masked: dict[str, Any] = _masked(row, self._paths, 0)
        return masked

    def message(self, message: M, row: Mapping[str, Any] | None) -> M:
        """Where a record stands, for what is said of it: its key masked, without value and headers."""
        return _with(message, key=self.key(message.key, row), value=None, headers=())

    def sources(self, messages: Iterable[RawMessage], rows: Iterable[Mapping[str, Any]]) -> list[Message]:
        """The same of scored records, which are many."""
        return [
            Message(
                *(one.topic, one.partition, one.offset, one.timestamp, self.key(one.key, row), None),
                member=member_of(one),
            )
            for one, row in zip(messages, rows, strict=True)
        ]

    def key(self, key: bytes | None, row: Mapping[str, Any] | None) -> bytes | None:
        """A record's key, or its hash: equal keys have equal hashes. row: the record's fields, None where unknown."""
        rule = self._options["keys"]
        if key is None or not self or rule == "never" or (rule == "auto" and self._is_free(key, row)):
            return key
        return f"{HASHED}{self._digest(b'key', key)}".encode()

    def dead_letter(
        self, dead: DeadLetter, row: dict[str, Any] | None, encode: Callable[[dict[str, Any]], bytes]
    ) -> DeadLetter:
        """The dead letter with a masked record, or where the record can't be read, with its place, length and hash.

        row      its fields, None where it has none
        encode   bytes of fields; UsageError or TypeError where they can't be written
        """
        if not self or not self._options["dead_letters"]:
            return dead
        message, value = dead.message, None
        if row is not None:
            try:
                value = encode(self.record(row))
            except (UsageError, TypeError, ValueError):
                value = None
        if value is None:
            value = orjson.dumps(self._stub(message))
        key, headers = self.key(message.key, row), tuple(self._headers(message.headers, row))
        quoted = row is not None and self._is_quoted(dead.detail.encode("utf-8", "surrogatepass"), row)
        shown = _with(message, key=key, value=value, headers=headers)
        return replace(dead, message=shown, detail=MASK if quoted else dead.detail)

    def token(self, value: Any) -> str:
        """What stands for a category: a keyed hash of its type and value."""
        if type(value) is Pseudonym:
            return value.token
        is_long = isinstance(value, str) and len(value) > MAX_CACHED
        return (self._new_token if is_long else self._token)(type(value).__name__, value)

    def group_digest(self, values: bytes) -> str:
        """What an alert group of these key values is told apart by."""
        return self._digest(b"group", values)

    def _new_token(self, kind: str, value: Any) -> str:
        return HASHED + self._digest(b"category", f"{kind}:{value}".encode("utf-8", "surrogatepass"))

    def _digest(self, purpose: bytes, content: bytes) -> str:
        return blake2b(content, digest_size=16, key=self._hash_key, person=purpose).hexdigest()

    def _stub(self, message: RawMessage) -> dict[str, Any]:
        value = message.value or b""
        source = {"topic": message.topic, "partition": message.partition, "offset": message.offset}
        return {"redacted": True, "bytes": len(value), "hash": self._digest(b"value", value), "source": source}

    def _headers(self, headers: Headers, row: Mapping[str, Any] | None) -> Iterator[tuple[str, bytes | None]]:
        """Those of a dead letter; none of a record that can't be read, for nothing tells what they hold."""
        mask = MASK.encode()
        for name, value in headers if row is not None else ():
            is_named, is_free = self.covers(name), self._is_free(name.encode("utf-8", "surrogatepass"), row)
            shown = value if value is None or (not is_named and self._is_free(value, row)) else mask
            yield (name if is_free or is_named else MASK), shown
        yield "redacted", b"true"

    def _is_quoted(self, data: bytes, row: Mapping[str, Any]) -> bool:
        """Whether these bytes hold a redacted value of the record."""
        forms = _forms(data)
        return any(_holds(forms, leaf) for leaves in self._leaves_of(row) for leaf in leaves)

    def _is_free(self, data: bytes, row: Mapping[str, Any] | None) -> bool:
        """Whether the record shows that these bytes hold no redacted value: each field has one to compare."""
        if row is None:
            return False
        of_fields, forms = self._leaves_of(row), _forms(data)
        return all(of_fields) and not any(_holds(forms, leaf) for leaves in of_fields for leaf in leaves)

    def _leaves_of(self, row: Mapping[str, Any]) -> list[list[Any]]:
        """The single values of each redacted field."""
        leaves: list[list[Any]] = [[] for _ in self._paths]
        for at, key, rest in self._routes(tuple(row)):
            item = row[key]
            if rest:
                leaves[at] += [leaf for part in _parts(item, rest, 0) for leaf in _leaves(part)]
            else:
                leaves[at] += [item] if isinstance(item, str) else _leaves(item)
        return leaves

    def _new_routes(self, keys: tuple[str, ...]) -> list[tuple[int, str, str]]:
        """Of records with these keys: where to look for which of the paths, and what is left of it there."""
        rests = ((at, key, _rest(path, key)) for at, path in enumerate(self._paths) for key in keys)
        return [(at, key, rest) for at, key, rest in rests if rest is not None]


NOTHING = Redaction()


def revive(row: dict[str, Any], names: Iterable[str]) -> dict[str, Any]:
    """A row that was kept as JSON, with its pseudonyms; names: the fields that can have one."""
    for name in names:
        if (value := row.get(name)) is not None:
            row[name] = _revived(value)
    return row


def _revived(value: Any) -> Any:
    """The same of one value; a set is kept as the list of its members, a map as one of pairs."""
    if isinstance(value, list):
        return list(map(_revived, value))
    return Pseudonym(value) if isinstance(value, str) and _PSEUDONYM.fullmatch(value) else value


def _is_below(name: str, path: str) -> bool:
    return name == path or name.startswith(path + ".")


def _rest(path: str, key: str) -> str | None:
    """What is left of a path below a key: empty where the key is all of it, or below it; None beside the path."""
    if _is_below(key, path):
        return ""
    return path[len(key) + 1 :] if path.startswith(key + ".") else None


def _masked(value: Any, paths: Sequence[str], depth: int) -> Any:
    if depth > MAX_DEPTH:
        return MASK
    if isinstance(value, list | tuple):
        return [_masked(item, paths, depth + 1) for item in value]
    if not isinstance(value, dict):
        return value
    copy = {}
    for key, item in value.items():
        rests = [rest for path in paths if (rest := _rest(path, key)) is not None]
        copy[key] = item if not rests else MASK if "" in rests else _masked(item, rests, depth + 1)
    return copy


def _parts(value: Any, path: str, depth: int) -> Iterator[Any]:
    """Everything at a path, in all its spellings."""
    if depth > MAX_DEPTH:
        return
    if isinstance(value, list | tuple):
        for item in value:
            yield from _parts(item, path, depth + 1)
    elif isinstance(value, dict):
        for key, item in value.items():
            rest = _rest(path, key)
            if rest == "":
                yield item
            elif rest is not None:
                yield from _parts(item, rest, depth + 1)


def _leaves(value: Any) -> Iterator[Any]:
    """Single values of a subtree, level by level, for it can be deep."""
    level = [value]
    while level:
        boxes = [item for item in level if isinstance(item, dict | list | tuple)]
        yield from (item for item in level if not isinstance(item, dict | list | tuple) and item is not None)
        level = [item for box in boxes for item in (box.values() if isinstance(box, dict) else box)]


def _forms(data: bytes) -> list[bytes]:
    """Bytes as they are and as they may be written, in lower case: percent-encoded, or JSON with escapes."""
    forms = [data.lower()]
    if b"%" in data:
        forms.append(unquote_to_bytes(data).lower())
    if b"\\" in data or b'"' in data:
        for text in (data, b'"' + data + b'"'):
            with suppress(orjson.JSONDecodeError):
                forms += [str(leaf).encode("utf-8", "surrogatepass").lower() for leaf in _leaves(orjson.loads(text))]
    return forms


def _holds(forms: Sequence[bytes], leaf: Any) -> bool:
    """Whether a value is in these bytes, as text in one of several encodings or as a number in Kafka's binary forms."""
    if isinstance(leaf, bool) or (isinstance(leaf, str) and len(leaf) > max(map(len, forms))):
        return False  # a word of two is no value of anybody; a long text has no shorter form
    is_long = isinstance(leaf, str) and len(leaf) > MAX_CACHED
    parts, wholes = (_written.__wrapped__ if is_long else _written)(leaf)
    return any(form in wholes or any(part in form for part in parts) for form in forms)


@lru_cache(1 << 14, typed=True)
def _written(leaf: Any) -> tuple[tuple[bytes, ...], frozenset[bytes]]:
    """How a value is written: what is part of a key that holds it, and what has to be all of it; in lower case."""
    parts, wholes = list[bytes](), list[bytes]()
    for text in {str(leaf), str(int(leaf)) if isinstance(leaf, float) and leaf.is_integer() else str(leaf)}:
        plain = text.encode("utf-8", "surrogatepass")
        wide = (text.encode(code, "surrogatepass") for code in ("utf-16-le", "utf-16-be"))
        written = [plain, plain.hex().encode(), b64encode(plain).rstrip(b"="), *wide]
        (parts if len(plain) >= MIN_PART else wholes).extend(written)
    if isinstance(leaf, int | float):
        for code in (">q", ">i", ">d", ">f") if isinstance(leaf, int) else (">d", ">f"):
            with suppress(struct.error, OverflowError):
                wholes.append(struct.pack(code, leaf))
    return tuple(part.lower() for part in parts), frozenset(whole.lower() for whole in wholes if whole)


def _with(message: M, **changes: Any) -> M:
    """The same message with other parts; the client's records, and a replay's lines, are named tuples."""
    changed: M = message._replace(**changes) if isinstance(message, tuple) else replace(message, **changes)  # type: ignore[type-var]
    return changed
