"""What a source of history is: records in blocks, in one order that is the same on every run."""

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from typing import NamedTuple, Protocol

from worker.records import Message, RawMessage


@dataclass(slots=True)
class Meter:
    """How far reading has come.

    done    bytes of the files as they lie on disk, or records of a topic
    total   the same at the end of the input; 0 where it is not known
    """

    done: int = 0
    total: int = 0


class Block(NamedTuple):
    """Some records of a source, in order.

    values     payloads, B of them; white space alone is a blank line of a file, which is no record
    messages   the same B records as the broker has them; None: they come from a file and have no place in a topic
    """

    values: Sequence[bytes | None]
    messages: Sequence[RawMessage] | None = None


class Source(Protocol):
    """Where `worker replay`, `worker train` and `worker infer-schema` read history. It is read once.

    name            what it is, for people: the paths, or the topic
    meter           how far reading has come
    empty           names of its parts that held no record; complete when all blocks are read
    unreadable      what could not be read and was passed over, for people; complete when all blocks are read
    record_format   the registered record format of its values; None: the one of the settings
    """

    name: str
    meter: Meter
    empty: Sequence[str] = ()
    unreadable: Sequence[str] = ()
    record_format: str | None = None

    def blocks(self) -> Iterator[Block]:
        """All records. DataError where the input is broken, after all whole records before that point."""


def messages_of(source: Source) -> Iterator[list[RawMessage]]:
    """Blocks of messages, without blank lines; a file's records stand in a topic of the source's name, in row order."""
    row = 0
    for block in source.blocks():
        if block.messages is not None:
            yield list(block.messages)
            continue
        numbered = enumerate(block.values, row)
        row += len(block.values)
        yield [Message(source.name, 0, at, -1, None, value) for at, value in numbered if value and value.strip()]
