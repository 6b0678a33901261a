"""From arguments and settings to the one source of history that every command reads: files, or a part of a topic."""

from collections.abc import Sequence
from dataclasses import dataclass
from functools import partial

from worker.broker.client import Connection
from worker.broker.ranges import TopicReader
from worker.broker.topic_ids import later_topic_ids
from worker.features.schema import Schema
from worker.processes.wiring import connection
from worker.settings import Settings
from worker.sources.base import Source
from worker.sources.files import Files
from worker.sources.lines import MAX_LINE_BYTES
from worker.sources.selection import selected_files
from worker.sources.topic import TopicRange, parse_time


@dataclass(frozen=True, slots=True)
class SourceRequest:
    """What a person names to be read.

    paths         files, patterns, folders, or - for standard input; of a topic none
    file_format   of all of them; None: each by its first bytes and its name
    topic         instead of files
    start, end    the first broker timestamp of the topic, and the one to stop before; None: no bound
    """

    paths: Sequence[str] = ()
    file_format: str | None = None
    topic: str | None = None
    start: str | None = None
    end: str | None = None


def open_source(
    settings: Settings,
    request: SourceRequest,
    schema: Schema | None = None,
    *,
    newest: int | None = None,
    spread: int | None = None,
) -> Source:
    """The source that was asked for. DataError for a file that is none, UsageError for a time that is none.

    schema   tells what the cells of a CSV file are, where one is known
    newest   of a topic without a range: about so many of its last records; None: all
    spread   of a long topic, or a long range of it: about so many records that are spread over it; None: all
    """
    if request.topic is None:
        # Lines up to the size that a record may have are read, at least up to 8 MiB.
        max_bytes = max(MAX_LINE_BYTES, settings.batch.max_record_bytes)
        files = selected_files(request.paths, request.file_format)
        return Files(
            files,
            schema=schema,
            format=request.file_format,
            max_line_bytes=max_bytes,
            columns=settings.input.columns,
            delimiter=settings.input.delimiter,
        )
    if newest is not None and request.start is None and request.end is None:
        return newest_records(settings, request.topic, newest)
    return _topic_range(settings, request.topic, request.start, request.end, spread)


def newest_records(settings: Settings, topic: str, count: int, link: Connection | None = None) -> Source:
    """About the newest `count` records of a topic."""
    link, committed = link or connection(settings), settings.kafka.read_committed
    return TopicRange(topic, lambda: TopicReader(link, read_committed=committed), newest=count)


def _topic_range(settings: Settings, topic: str, start: str | None, end: str | None, spread: int | None) -> Source:
    """A topic's records from one time to another, as the live worker would read them."""
    from_ms, to_ms = (None if text is None else parse_time(text) for text in (start, end))
    link = connection(settings, "anomaly-replay")
    if spread is not None:  # no alert comes of it, so no group is asked
        reader = partial(TopicReader, link, read_committed=settings.kafka.read_committed)
        return TopicRange(topic, reader, from_ms, to_ms, spread=spread)
    return TopicRange(
        topic,
        lambda: TopicReader(link, read_committed=settings.kafka.read_committed),
        from_ms=from_ms,
        to_ms=to_ms,
        later_topic_ids=lambda: later_topic_ids(link, topic, settings.kafka.group_id),
    )
