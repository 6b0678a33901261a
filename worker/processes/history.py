"""Sources of history by the settings, for replay, train and infer-schema."""

from worker.broker.base import RangeReader
from worker.processes.wiring import connection
from worker.settings import Settings
from worker.sources.base import Source
from worker.sources.topic import NewestRecords, TopicRange, parse_time


def topic_range(settings: Settings, topic: str, start: str | None, end: str | None) -> Source:
    """A topic's records from one time to another, as the live worker would read them; UsageError for no time."""
    from_ms, to_ms = (None if text is None else parse_time(text) for text in (start, end))
    committed = settings.delivery == "exactly_once"
    return TopicRange(
        topic, lambda: _reader(settings, "anomaly-replay", committed=committed), from_ms=from_ms, to_ms=to_ms
    )


def newest_records(settings: Settings, topic: str, count: int) -> Source:
    """About the newest `count` committed records of a topic."""
    return NewestRecords(topic, lambda: _reader(settings, "anomaly-worker", committed=True), count)


def for_source(settings: Settings, source: Source) -> Settings:
    """The same settings, with the record format of a source that has its own."""
    if source.record_format is None:
        return settings
    kafka = settings.kafka.model_copy(update={"format": source.record_format})
    return settings.model_copy(update={"kafka": kafka})


def _reader(settings: Settings, client_id: str, *, committed: bool) -> RangeReader:
    from worker.broker.ranges import TopicReader

    return TopicReader(connection(settings, client_id), read_committed=committed)
