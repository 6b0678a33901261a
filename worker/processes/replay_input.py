"""The input of a replay: files, a topic range or a sample, as batches of labelled lines."""

import argparse
import sys
from collections.abc import Callable, Iterable, Iterator, Sequence
from dataclasses import dataclass, field
from itertools import chain, islice

import orjson

from worker.errors import DataError, UsageError
from worker.features.schema import Schema
from worker.formats.base import Decoder
from worker.processes.wiring import connection, make_decoder
from worker.records import RawMessage
from worker.replay.run.labels import FieldLabels, IdLabels, Labels
from worker.replay.run.lines import Line, Reader
from worker.settings import Settings
from worker.sources.files import Files
from worker.sources.lines import Meter

SAMPLE_RECORDS = 60_000
SAMPLE_PER_DAY = 4_000
SAMPLE_LABEL = "label"


@dataclass(slots=True)
class Input:
    """What a replay reads. `meter` is in bytes for files, in records for a topic and the sample."""

    names: list[str]
    batches: Iterator[list[Line]]
    reader: Reader
    meter: Meter
    labels: Labels | None
    empty: list[str] = field(default_factory=list)


def open_input(settings: Settings, args: argparse.Namespace, schema: Schema | None) -> Input:
    """The input that the command line names. Nothing but the files' sizes is looked at before the first batch."""
    labels = _labels(args, schema)
    reader = Reader(
        topic=args.topic or settings.kafka.input_topic,
        partitions=args.partitions,
        key_field=args.key,
        labels=labels,
        batch_size=settings.batch.size,
        decoder=make_decoder(settings, any_size=True),
    )
    if args.topic:
        meter = Meter()
        return Input(
            [f"topic {args.topic}"], reader.from_messages(_topic(settings, args, meter)), reader, meter, labels
        )
    if args.sample:
        meter = Meter(total=SAMPLE_RECORDS)
        name = f"a sample of {SAMPLE_RECORDS:,} card payments, seed {settings.seed}"
        return Input([name], reader.from_values(_sample(settings.seed, meter)), reader, meter, labels)
    files = Files(args.file, schema=schema, format=args.format)
    names = ["standard input" if path == "-" else path for path in args.file]
    return Input(names, reader.from_values(files), reader, files.meter, labels, files.empty)


def _labels(args: argparse.Namespace, schema: Schema | None) -> Labels | None:
    if args.labels:
        id_field = args.label_id or (schema.ids[0] if schema and schema.ids else None)
        if id_field is None:
            raise UsageError("--labels needs --label-id: the field that holds the ids (the schema names none)")
        return IdLabels(args.labels, id_field)
    name = args.label or (SAMPLE_LABEL if args.sample else None)
    return FieldLabels(name) if name else None


def _sample(seed: int, meter: Meter) -> Iterator[list[bytes]]:
    """Payments of the demo with planted anomalies, and a field that tells which."""
    from worker.demo.anomalies import Planter
    from worker.demo.traffic import Traffic

    marked = Planter(seed=seed, spacing=100).plant(Traffic(seed, per_day=SAMPLE_PER_DAY))
    rows = ({**payment, SAMPLE_LABEL: truth.kind if truth else "normal"} for payment, truth in marked)
    values = islice((orjson.dumps(row) for row in rows), SAMPLE_RECORDS)
    while block := list(islice(values, 2048)):
        meter.done += len(block)
        yield block


def _topic(settings: Settings, args: argparse.Namespace, meter: Meter) -> Iterator[Iterable[RawMessage]]:
    from worker.broker.ranges import TopicReader
    from worker.sources.topic import find_bounds, parse_time, read_range

    start, end = (None if text is None else parse_time(text) for text in (args.start, args.end))
    committed = settings.delivery == "exactly_once"  # as the live worker reads
    reader = TopicReader(connection(settings, "anomaly-replay"), read_committed=committed)
    try:
        bounds = find_bounds(reader, args.topic, start, end)
        meter.total = sum(max(0, last - first) for first, last in bounds.values())
        for block in read_range(reader, bounds):
            meter.done += len(block)
            yield block
    finally:
        reader.close(5.0)


def peek(batches: Iterable[list[Line]], count: int) -> tuple[list[Line], Iterator[list[Line]]]:
    """About the first `count` lines (whole batches, fewer where the input ends), and all batches from the start.

    An input that breaks off meanwhile raises its error where it belongs: after what came before it.
    """
    source, head = iter(batches), list[list[Line]]()
    fault: DataError | None = None
    try:
        while sum(map(len, head)) < count and (batch := next(source, None)) is not None:
            head.append(batch)
    except DataError as error:
        fault = error

    def rest() -> Iterator[list[Line]]:
        yield from head
        if fault is not None:
            raise fault
        yield from source

    return list(chain.from_iterable(head)), rest()


def check_labels(head: Sequence[Line], labels: Labels | None, decoder: Decoder) -> None:
    """DataError where the label is in none of the first records: the name is wrong, and the report would be, too."""
    if labels is None or not head or any(line.label is not None for line in head):
        return
    row = next((row for row in decoder.rows([line.value for line in head]) if row is not None), {})
    raise DataError(
        f"the field {labels.field!r} is in none of the first {len(head)} records; their fields are {', '.join(row)}"
    )


def warn(text: str) -> None:
    """One line on standard error."""
    sys.stderr.write(f"note: {text}\n")


Track = Callable[[Iterable[list[Line]]], Iterator[list[Line]]]
