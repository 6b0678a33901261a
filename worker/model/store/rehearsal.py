"""Rehearsal rows: some of the records that a model was fitted on, kept so that later fits don't forget them.

They hold what the model sees and nothing else: the encoded fields of the schema. Redacted fields are among them, for a
fit needs their values; ids and ignored fields are not.
"""

import gzip
from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np
import orjson
from numpy.typing import NDArray

from worker.features.schema import Schema, value_of
from worker.formats.base import Row

ROWS = "rows.jsonl.gz"
KEEP_ROWS = 5000
LEFT_OUT = "-"


def rehearsal_draw(count: int, keep: int, seed: int) -> NDArray[np.int64]:
    """Which `keep` of so many rows: one out of each of `keep` equal parts, at random; all where they are fewer.

    Where rows come in the order of time, every part of the time span is there; a plain draw would leave that to chance.
    It works badly for what is rare: a kind of record that stands in one row of a thousand is kept as seldom. And over
    many refits an old population fades, because each draw takes from what the last one kept.

        count  rows that were fitted, in their order
        keep   how many to keep
        seed   the same for the same draw

    >>> rehearsal_draw(100, 5, seed=0).tolist()
    [17, 32, 50, 65, 86]

    Robins, A. (1995): Catastrophic forgetting, rehearsal and pseudorehearsal. Connection Science 7. One draw a part is
    stratified sampling (Cochran, W. G., 1977: Sampling techniques, chapter 5).
    """
    if count <= keep:
        return np.arange(count)
    borders = np.linspace(0, count, keep + 1).round().astype(np.int64)
    return np.random.default_rng(seed).integers(borders[:-1], borders[1:])


def rehearsal_row(schema: Schema, row: Row) -> Row:
    """The record's encoded fields by their flat names, as the vectorizer reads them.

    A field that is required stays though it is not encoded, or the row would be refused: an id as a dash.
    """
    values = {field.name: value_of(row, field.name) for field in schema.fields if field.encoded}
    for field in schema.fields:
        if field.required and not field.encoded:
            values[field.name] = LEFT_OUT if field.is_id else value_of(row, field.name)
    return {name: value for name, value in values.items() if value is not None}


def pack_rows(rows: Sequence[Mapping[str, Any]]) -> bytes:
    """Rows as gzip'ed JSON lines, no bytes for no rows; the same rows give the same bytes."""
    if not rows:
        return b""
    return gzip.compress(b"".join(orjson.dumps(row, option=orjson.OPT_APPEND_NEWLINE) for row in rows), 6, mtime=0)


def unpack_rows(content: bytes) -> tuple[Row, ...]:
    """The rows of packed bytes."""
    return tuple(map(orjson.loads, gzip.decompress(content).splitlines())) if content else ()
