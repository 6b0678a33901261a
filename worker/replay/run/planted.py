"""Planted anomalies in recorded traffic: would the model notice? The answer needs no labels."""

from collections.abc import Iterable, Iterator

from worker.errors import DataError
from worker.features.inject import inject
from worker.features.schema import Schema
from worker.formats.base import Decoder
from worker.formats.json_objects import JsonDecoder
from worker.replay.run.labels import NORMAL
from worker.replay.run.lines import Line, rebatch

BLOCK_RECORDS = 4096
"""Records among which anomalies are planted at once, whatever the size of batches, so that it doesn't matter."""


def plant_into(
    batches: Iterable[list[Line]],
    schema: Schema,
    *,
    share: float,
    seed: int,
    batch_size: int,
    decoder: Decoder = JsonDecoder(),  # noqa: B008  # immutable
) -> Iterator[list[Line]]:
    """The same records with about `share` of them made anomalous, and labelled with what was done to them.

    A record that was not touched and has no label of its own counts as normal.
    Records without fields, and blocks where nothing can be planted, stay as they are.
    """
    blocks = enumerate(rebatch(batches, BLOCK_RECORDS))
    planted = (_plant(lines, schema, share, seed * 1_000_003 + number, decoder) for number, lines in blocks)
    return rebatch(planted, batch_size)


def _plant(lines: list[Line], schema: Schema, share: float, seed: int, decoder: Decoder) -> list[Line]:
    lines = [line._replace(label=NORMAL) if line.label is None else line for line in lines]
    parsed = [(at, row) for at, row in enumerate(decoder.rows([line.value for line in lines])) if row is not None]
    if round(len(parsed) * share) < 1:
        return lines
    try:
        rows, truth = inject([row for _, row in parsed], schema, share=share, seed=seed)
    except DataError:
        return lines
    for change in truth:
        at = parsed[change.index][0]
        lines[at] = lines[at]._replace(value=decoder.encode(rows[change.index]), label=change.kind)
    return lines
