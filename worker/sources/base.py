"""What a source of history is: records in blocks, in one order that is the same on every run."""

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from types import MappingProxyType
from typing import NamedTuple, Protocol, TypeVar

from worker.formats.base import decoded_bytes
from worker.records import Message, Partition, RawMessage
from worker.sources.history import History
from worker.texts import quoted


@dataclass(slots=True)
class Meter:
    """How far reading has come.

    done    bytes of the files as they lie on disk, or records of a topic
    total   the same at the end of the input; 0 where it is not known
    """

    done: int = 0
    total: int = 0


MAX_EXAMPLES, MAX_EXAMPLE = 5, 400  # characters
BATCH_BYTES = 16 * 1024 * 1024  # decoded, of records that are handled together
LARGE_BYTES = 1024  # on average: a block of smaller records can't grow to much when it is decoded

Record = TypeVar("Record", bound=RawMessage)


@dataclass(slots=True)
class UnreadableItems:
    """Items of a source that could not be read and were left out, such as a row of another width.

    count      how many
    examples   the first 5: file, line or row, and why
    """

    count: int = 0
    examples: list[str] = field(default_factory=list)

    def add(self, text: object, count: int = 1) -> None:
        """Count what was left out; the text says where it stands and why."""
        self.count += count
        if len(self.examples) < MAX_EXAMPLES:
            self.examples.append(quoted(text, MAX_EXAMPLE))

    def notes(self) -> list[str]:
        """Lines for a person; none where everything was read."""
        if not self.count:
            return []
        rest = self.count - len(self.examples)
        lines = [f"passed over: {example}" for example in self.examples]
        return [*lines, f"passed over: {rest:,} more"] if rest else lines


class Block(NamedTuple):
    """Some records of a source, in order.

    values     payloads, B of them; white space alone is a blank line of a file, which is no record; None is a row or
               line of a file that could not be read
    messages   the same B records as the broker has them; None: they come from a file and have no place in a topic
    """

    values: Sequence[bytes | None]
    messages: Sequence[RawMessage] | None = None


class Source(Protocol):
    """Where `worker replay`, `worker train` and `worker infer-schema` read history. It is read once.

    name            what it is, for people: the paths, or the topic
    meter           how far reading has come
    unreadable      what could not be read and was left out; complete when all blocks are read
    empty           names of its parts that held no record; complete when all blocks are read
    topic_ids       what live alert ids of a topic have in them, by partition, where it was created again
    partition_count of the topic; 0: there is none, or it is not known yet
    record_format   the registered record format of its values; None: the one of the settings
    """

    name: str
    meter: Meter
    unreadable: UnreadableItems
    empty: Sequence[str] = ()
    record_format: str | None = None
    topic_ids: Mapping[Partition, str] = MappingProxyType({})
    partition_count: int = 0

    def history(self) -> History:
        """What was read, so that it is known again; complete when all blocks are read."""
        return History()

    def blocks(self) -> Iterator[Block]:
        """All records, in blocks of about a megabyte. DataError where parts of the input are missing or can't be read,
        after all records that could.
        """


def pieces(messages: Sequence[Record], max_bytes: int = BATCH_BYTES) -> Iterator[tuple[Sequence[Record], int]]:
    """These messages in parts that take about `max_bytes` at most when they are decoded, each with what it takes."""
    size = sum(len(message.value or b"") for message in messages)
    if size <= LARGE_BYTES * len(messages):
        yield messages, size
        return
    start = held = 0
    for at, message in enumerate(messages):
        weight = decoded_bytes(message.value)
        if held and held + weight > max_bytes:
            yield messages[start:at], held
            start, held = at, 0
        held += weight
    yield messages[start:], held


def messages_of(source: Source) -> Iterator[Sequence[RawMessage]]:
    """Messages in parts of a bounded size, without blank lines and what could not be read; a file's records stand in a
    topic of the source's name, in row order.
    """
    row = 0
    for block in source.blocks():
        messages = block.messages
        if messages is None:
            records = [(at, value) for at, value in enumerate(block.values, row) if value and value.strip()]
            row += len(block.values)
            messages = [Message(source.name, 0, at, -1, None, value) for at, value in records]
        yield from (piece for piece, _ in pieces(messages))
