"""The files that a replay writes as it goes, alerts.jsonl and scores.parquet, in memory that does not grow."""

import heapq
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, replace
from operator import attrgetter
from pathlib import Path
from typing import Any, cast

import numpy as np
from numpy.typing import NDArray

from worker.alerts.encode import encode_alert
from worker.errors import DataError, Hint
from worker.records import Alert, BoolArray, FloatArray, Outcome, Partition
from worker.replay.lines import Line
from worker.replay.score_table import ANOMALOUS, UNKNOWN
from worker.texts import quoted

ALERTS_FILE, SCORES_FILE, METRICS_FILE, REPORT_FILE = "alerts.jsonl", "scores.parquet", "metrics.json", "report.html"
ROW_GROUP = 131_072
STRONGEST = 50
MAX_SHOWN_BYTES = 128 * 1024  # of an alert in the report; larger ones appear without their record


class AlertsFile:
    """alerts.jsonl: on each line exactly what the live worker publishes; remembers the 50 strongest.

    Lines are in input order, over all partitions; one about several records (the end of a group, a summary) follows the
    one before it in its partition. Strength is the score, the earlier record first among equals.
    """

    def __init__(self, folder: Path) -> None:
        self._file = (folder / ALERTS_FILE).open("wb")
        self.strongest: list[tuple[float, int, bytes, str | None]] = []  # score, - line, JSON, label; strongest first
        self._last_row: dict[Partition, int] = {}
        self._written = 0

    def add(self, outcome: Outcome) -> None:
        """Write an outcome's alerts."""
        for alert in sorted(outcome.alerts, key=self._row_of):
            value = encode_alert(alert)
            self._file.write(value + b"\n")
            self._written += 1
            if alert.of_one_record:
                shown = value if len(value) <= MAX_SHOWN_BYTES else encode_alert(_abridged(alert, len(value)))
                self.strongest.append((alert.score, -self._written, shown, cast("Line", alert.message).label))
        self.strongest = heapq.nlargest(STRONGEST, self.strongest)

    # A pipeline lists its alerts partition by partition, which depends on how the input was cut into batches; by input
    # row they don't. An alert about several records has no row of its own, so it takes that of the last alert before
    # it in its partition; `sorted` asks for each key once, in order, and keeps the order of equal ones.
    def _row_of(self, alert: Alert) -> int:
        partition = Partition(alert.message.topic, alert.message.partition)
        if alert.of_one_record:
            self._last_row[partition] = cast("Line", alert.message).row
        return self._last_row.get(partition, 0)

    def close(self) -> None:
        """Flush and close."""
        self._file.close()


def _abridged(alert: Alert, size: int) -> Alert:
    """An alert without its record, and with short values in its explanation."""

    def short(value: Any) -> Any:
        return value if value is None or isinstance(value, int | float) else quoted(value)

    reasons = tuple(replace(reason, observed=short(reason.observed)) for reason in alert.explanation)
    ids = {name: short(value) for name, value in alert.ids.items()}
    record = {"(left out)": f"the alert has {size:,} bytes: it stands in {ALERTS_FILE}"}
    return replace(alert, explanation=reasons, ids=ids, record=record)


class ScoresFile:
    """scores.parquet: a row per scored record in input order, written in row groups of 131,072.

    index           int64, 0-based line or row of the input
    partition       int32
    event_time      timestamp in milliseconds, UTC; null where there is none
    score           float64
    threshold       float64; null before there is one
    alert           bool, by the threshold alone
    model_version   string
    label           int8, only with `labelled`: 1 anomalous, 0 normal, null unknown
    latent          list of float32, only with `latent`
    """

    def __init__(self, folder: Path, *, labelled: bool, latent: bool = False) -> None:
        self._pa, pq = _arrow()
        pa = self._pa
        fields = [("index", pa.int64()), ("partition", pa.int32()), ("event_time", pa.timestamp("ms", tz="UTC"))]
        fields += [("score", pa.float64()), ("threshold", pa.float64()), ("alert", pa.bool_())]
        fields += [("model_version", pa.string())]
        fields += [("label", pa.int8())] if labelled else []
        fields += [("latent", pa.list_(pa.float32()))] if latent else []
        self._schema = pa.schema(fields)
        self._writer = pq.ParquetWriter(
            folder / SCORES_FILE,
            self._schema,
            compression="zstd",
            compression_level=1,
            use_dictionary=["model_version", "threshold", "partition"],  # what repeats; half the time and space
            column_encoding={"index": "DELTA_BINARY_PACKED", "event_time": "DELTA_BINARY_PACKED"},
        )
        self._batches: list[Any] = []
        self._rows = 0

    def add(self, outcome: Outcome, groups: NDArray[np.int8]) -> None:
        """Take an outcome's scores; groups: UNKNOWN, NORMAL or ANOMALOUS, int8 (B,)."""
        pa, scores = self._pa, outcome.scores
        lines = cast("Sequence[Line]", scores.messages)
        size = len(lines)
        columns = [
            pa.array(np.fromiter(map(attrgetter("row"), lines), np.int64, size)),
            pa.array(np.fromiter(map(attrgetter("partition"), lines), np.int32, size)),
            pa.array(scores.event_time_ms, mask=scores.event_time_ms == -1).cast(self._schema.field("event_time").type),
            pa.array(scores.score),
            pa.array(scores.threshold, mask=np.isnan(scores.threshold)),
            pa.array(scores.alert),
            pa.repeat(scores.model_version, size),
        ]
        if "label" in self._schema.names:
            columns.append(pa.array((groups == ANOMALOUS).astype(np.int8), mask=groups == UNKNOWN))
        if "latent" in self._schema.names:
            assert scores.latent is not None, "the pipeline's model gives no latents"  # noqa: S101
            ends = pa.array(np.arange(size + 1, dtype=np.int32) * scores.latent.shape[1])
            columns.append(pa.ListArray.from_arrays(ends, pa.array(scores.latent.reshape(-1))))
        self._batches.append(pa.record_batch(columns, schema=self._schema))
        self._rows += size
        if self._rows >= ROW_GROUP:
            self._flush()

    def _flush(self) -> None:
        if self._rows:
            self._writer.write_table(self._pa.Table.from_batches(self._batches, self._schema))
        self._batches, self._rows = [], 0

    def close(self) -> None:
        """Write what is left and the footer."""
        self._flush()
        self._writer.close()


def _arrow() -> tuple[Any, Any]:
    try:
        import pyarrow as pa
        import pyarrow.parquet as pq
    except ImportError as error:
        raise DataError("replay needs pyarrow", hint=Hint.INSTALL_REPLAY) from error
    return pa, pq


def row_groups(folder: Path, names: Sequence[str] | None = None) -> Iterator[Any]:
    """scores.parquet of a folder as pyarrow tables, one a row group; none where a named column isn't there."""
    _, pq = _arrow()
    with pq.ParquetFile(folder / SCORES_FILE) as file:
        if set(names or ()) <= set(file.schema_arrow.names):
            yield from (file.read_row_group(number, columns=names) for number in range(file.num_row_groups))


@dataclass(frozen=True, slots=True)
class ScoreColumns:
    """One row group of scores.parquet, as arrays (B,); time_ms is -1 where there is none, labels are groups."""

    index: NDArray[np.int64]
    score: FloatArray
    threshold: FloatArray
    alert: BoolArray
    time_ms: NDArray[np.int64]
    groups: NDArray[np.int8]


def read_scores(folder: Path) -> Iterator[ScoreColumns]:
    """scores.parquet again, row group by row group."""

    def column(table: Any, name: str, kind: str, missing: float) -> Any:
        return table[name].cast(kind).fill_null(missing).to_numpy()

    for table in row_groups(folder):
        labels = column(table, "label", "int8", -1) if "label" in table.column_names else np.full(table.num_rows, -1)
        yield ScoreColumns(
            column(table, "index", "int64", 0),
            column(table, "score", "float64", np.nan),
            column(table, "threshold", "float64", np.nan),
            table["alert"].to_numpy(),
            column(table, "event_time", "int64", -1),
            (labels + 1).astype(np.int8),
        )
