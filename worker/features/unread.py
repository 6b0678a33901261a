"""Fields of a schema that no record has: mostly they are misspelt, and would be missing for ever without a word."""

from collections.abc import Sequence

from worker.features.paths import value_of, walk
from worker.features.schema import Schema
from worker.formats.base import Row
from worker.texts import did_you_mean, quoted, shortened

SAMPLED = 200  # records of which the names are compared
MAX_NAMED = 5


def unread_note(schema: Schema, rows: Sequence[Row], *, misspelt: bool = False) -> str | None:
    """What to say of the fields that no record has a value in, each with the nearest name that one has and the schema
    has not; None where there is nothing to say. Fields that are ignored need no record.

    misspelt   only of those that have such a name: among the first records, one that is rare can be absent

    >>> from worker.features.schema import parse_schema
    >>> schema = parse_schema('fields."user.nmae".kind = "categorical"')
    >>> unread_note(schema, [{"user": {"name": "ann"}}])
    "none of 1 records has a value in 'user.nmae' (did you mean 'user.name'?)"
    """
    names = [field.name for field in schema.fields if field.encoded or field.is_id or field.is_time]
    unread = [name for name in names if all(value_of(row, name) is None for row in rows)]
    if not unread or not rows:
        return None
    known = dict.fromkeys(name for row in rows[:SAMPLED] for name, value in walk(row)[0].items() if value is not None)
    others = sorted(known.keys() - {field.name for field in schema.fields})
    near = {name: did_you_mean(name, others) for name in unread}
    shown = [name for name in unread if near[name] or not misspelt]
    named = shortened([f"{quoted(name)!r}{near[name]}" for name in shown], MAX_NAMED)
    return f"none of {len(rows):,} records has a value in {named}" if shown else None
