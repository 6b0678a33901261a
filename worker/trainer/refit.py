"""One refit: recent records to a bundle in the store."""

from collections import deque
from collections.abc import Iterable, Sequence

from worker.errors import DataError
from worker.features.schema import Schema
from worker.formats.base import Decoder, Row
from worker.model.learn import fit_bundle
from worker.model.network.fit import FitOptions, Progress
from worker.model.store.bundle import Bundle
from worker.records import RawMessage


def usable_rows(batches: Iterable[Sequence[RawMessage]], *, window: int, decoder: Decoder) -> list[Row]:
    """The newest `window` records that have fields, in the order given."""
    rows: deque[Row] = deque(maxlen=window)
    for batch in batches:
        rows.extend(decoder.decode(batch).rows)
    return list(rows)


def refit(
    schema: Schema,
    rows: Sequence[Row],
    options: FitOptions,
    *,
    source: str,
    minimum: int,
    created_at: str,
    keep_rows: int,
    progress: Progress | None = None,
) -> Bundle:
    """Fit a bundle on rows; `source` is named in its report. DataError where there are fewer than `minimum`."""
    if len(rows) < minimum:
        raise DataError(
            f"{source} holds {len(rows)} usable records, at least {minimum} are needed (WORKER_TRAIN__MIN_RECORDS)"
        )
    return fit_bundle(
        schema,
        rows,
        options,
        created_at=created_at,
        progress=progress,
        facts={"source": source},
        keep_rows=keep_rows,
    )
