"""What the bytes of a value look like, for whoever has to say that they are not what was expected."""

import csv
import re
from collections.abc import Callable
from typing import Final, NamedTuple

import orjson

from worker.formats.packed import GZIP, ZSTD

MARK: Final = b"\xef\xbb\xbf"  # of UTF-8, which some editors and exports put in front
CONFLUENT: Final = b"\0"  # then four bytes of a schema's id
HEADER_BYTES: Final = 5
MAX_BYTES = 16_384  # of a value that are looked at
MAX_CELL, MAX_CELL_WORDS = 64, 4
MAX_INDEXES = 32  # of a Protobuf message's type, each within the one before it
DELIMITERS: Final = ",;\t|"
UNFOLD: Final = "[input.unfold] = records"
NOT_FINITE: Final = (b"NaN", b"Infinity")

# A string is taken whole, whether it ends or not, so that the time is linear in the length of any value.
_NOT_FINITE = re.compile(rb'"(?:[^"\\]++|\\.)*+(?:"|\\?\Z)|-?\b(?:NaN|Infinity)\b', re.DOTALL)
_BEGINS_JSON = re.compile(rb'\{\s*(?:["}]|\Z)|\[\s*(?:\Z|[\[{"\]]|-?[\d.eE+]+\s*[,\]])')
_FIRST_BYTES: Final = {
    GZIP: "gzip",
    ZSTD: "zstd",
    b"Obj\x01": "a whole file of Avro, not a record",
    b"PAR1": "a whole Parquet file, not a record",
    b"\xff\xfe": "text in UTF-16, which is not read: write UTF-8",
    b"\xfe\xff": "text in UTF-16, which is not read: write UTF-8",
}


class Guess(NamedTuple):
    """What a value looks like, and the setting that reads it, by its path; "" where none does."""

    what: str
    setting: str = ""


def looks_like(value: bytes) -> str:
    """A few words on what a value looks like, with the setting that reads it. Nothing of its content is in them.

    >>> looks_like(b"10:00:00 INFO worker-0 done in 4 ms")
    'looks like a line of text, which [kafka.format] = lines reads'
    """
    guess = guessed(value)
    return f"looks like {guess.what}" + (f", which {guess.setting} reads" if guess.setting else "")


def guessed(value: bytes) -> Guess:
    """The first guess that fits, by first bytes, then as text, else as bytes."""
    if not value.strip():
        return Guess("nothing: it is empty")
    for magic, what in _FIRST_BYTES.items():
        if value.startswith(magic):
            return Guess(what)
    if value.startswith(CONFLUENT) and len(value) >= HEADER_BYTES:
        return _with_header(value)
    head = value.removeprefix(MARK)[:MAX_BYTES]
    try:
        text = head.decode()
    except UnicodeDecodeError as error:
        if len(value) <= MAX_BYTES or error.start < len(head) - 4:
            return _bytes(value)
        text = head[: error.start].decode()
    if any(ord(character) < 32 and character not in "\t\r\n\f\v\x1b" for character in text):
        return _bytes(value)
    text = text.strip()  # of more than the bytes' blanks: a mark alone, a no-break space
    if not text:
        return Guess("nothing: it is empty")
    return next(filter(None, (guess(value, text) for guess in _TEXTS)))


def schema_id(value: bytes) -> int:
    """The id in Confluent's header."""
    return int.from_bytes(value[1:HEADER_BYTES], "big")


def without_not_finite(value: bytes) -> bytes:
    """JSON with null in place of each NaN and infinity, as Python's, R's and JavaScript's writers put them.

    >>> without_not_finite(b'{"a": NaN, "b": [-Infinity], "c": "NaN"}')
    b'{"a": null, "b": [null], "c": "NaN"}'
    """
    return _NOT_FINITE.sub(lambda match: match[0] if match[0].startswith(b'"') else b"null", value)


def _with_header(value: bytes) -> Guess:
    number, body = schema_id(value), value[HEADER_BYTES:]
    with_id = f"with Confluent's header, schema id {number}"
    if body.lstrip()[:1] in (b"{", b"["):
        return Guess(f"JSON {with_id}", "[kafka.format] = json")
    place = message_place(body)
    if place is not None and _is_protobuf(body[place[1] :]):
        return Guess(f"Protobuf {with_id}", "[kafka.format] = protobuf")
    return Guess(f"Avro {with_id}", "[kafka.format] = avro")


def message_place(body: bytes) -> tuple[tuple[int, ...], int] | None:
    """The place of a Protobuf message's type in its schema, and where its fields begin behind that; None: not there."""
    at, count = _read_varint(body, 0)
    if at is None or count % 2 or count > 2 * MAX_INDEXES:
        return None
    indexes: list[int] = []
    for _ in range(count // 2):  # zigzag, so that only even ones are places
        at, index = _read_varint(body, at)
        if at is None or index % 2:
            return None
        indexes.append(index // 2)
    return tuple(indexes or (0,)), at


def _is_protobuf(data: bytes) -> bool:
    """Whether these bytes are fields of Protobuf, one after the other, up to the end."""
    at: int | None = 0
    while at is not None and at < len(data):
        at, tag = _read_varint(data, at)
        if at is None or not tag >> 3:
            return False
        kind = tag & 7
        if kind == 0:
            at, _ = _read_varint(data, at)
        elif kind == 2:
            at, size = _read_varint(data, at)
            at = None if at is None else at + size
        elif kind in (1, 5):
            at += 8 if kind == 1 else 4
        else:
            return False
    return at == len(data) and at > 0


def _read_varint(data: bytes, at: int) -> tuple[int | None, int]:
    """Of Protobuf: the place behind a number of variable length, and the number; no place where it does not end."""
    number = shift = 0
    for byte in data[at : at + 10]:
        number |= (byte & 0x7F) << shift
        shift += 7
        at += 1
        if byte < 0x80:
            return at, number
    return None, 0


def _bytes(value: bytes) -> Guess:
    if _is_protobuf(value):
        return Guess("Protobuf without Confluent's header, which names no schema")
    return Guess("bytes that are no text")


def _json_guess(value: bytes, text: str) -> Guess | None:
    if text[0] not in '{["':
        return None
    if len(value) > MAX_BYTES * 64:
        return Guess("JSON") if text[0] != '"' else None
    content = value.removeprefix(MARK)
    try:
        read = orjson.loads(content)
    except orjson.JSONDecodeError:
        if any(word in value for word in NOT_FINITE) and _is_json(without_not_finite(content)):
            return Guess("JSON with NaN or Infinity", "[input.nan] = null")
        return _several_guess(content)
    if isinstance(read, dict):
        return Guess("a JSON object", "[kafka.format] = json")
    if isinstance(read, list):
        return Guess(f"a JSON array of {len(read)} values", UNFOLD)
    return Guess("JSON inside of a JSON string: it was encoded twice") if _is_json(str(read).encode()) else None


def _is_json(content: bytes) -> bool:
    try:
        return isinstance(orjson.loads(content), dict | list)
    except orjson.JSONDecodeError:
        return False


def _several_guess(content: bytes) -> Guess | None:
    if content[:1] == b'"':
        return None
    lines = [line for line in content.splitlines() if line.strip()]
    if len(lines) > 1 and all(map(_is_json, lines)):
        return Guess(f"{len(lines)} JSON values, one a line", UNFOLD)
    first = re.split(rb"(?<=[}\]])\s*,?\s*(?=[{\[])", content, maxsplit=1)[0]
    if len(first) < len(content) and _is_json(first):
        return Guess("several JSON values, one after the other", UNFOLD)
    if _BEGINS_JSON.match(content):
        return Guess("JSON that is cut off or broken")
    if re.match(rb"\{\s*'", content):
        return Guess("a Python dictionary, not JSON: write it with json.dumps")
    return None


def _markup_guess(_: bytes, text: str) -> Guess | None:
    return Guess("XML or HTML, which is not read") if re.match(r"<[?!a-zA-Z][^>]*>", text) else None


def _delimited_guess(_: bytes, text: str) -> Guess | None:
    """Short cells, none of them a sentence, as many in each line."""
    lines = text.splitlines()[:20]
    delimiter = max(DELIMITERS, key=text.count)
    if delimiter not in lines[0]:
        return None
    try:
        rows = [row for row in csv.reader(lines, delimiter=delimiter) if row]
    except csv.Error:
        return None
    cells = [cell for row in rows for cell in row]
    is_table = len({len(row) for row in (rows[:-1] or rows)}) == 1  # the last line may be cut off
    is_short = all(len(cell) <= MAX_CELL and len(cell.split()) <= MAX_CELL_WORDS for cell in cells)
    has_gaps = sum(cell.startswith(" ") for cell in cells) * 2 > len(cells) - len(rows)  # a list in a sentence
    return Guess("CSV", "[kafka.format] = csv") if is_table and is_short and not has_gaps else None


def _text_guess(_: bytes, text: str) -> Guess | None:
    lines = text.count("\n") + 1
    what = "a line of text" if lines == 1 else f"{'more than ' if lines > 99 else ''}{min(lines, 99)} lines of text"
    return Guess(what, "[kafka.format] = lines")


_TEXTS: Final[tuple[Callable[[bytes, str], Guess | None], ...]] = (
    *(_json_guess, _markup_guess, _delimited_guess),
    _text_guess,
)
