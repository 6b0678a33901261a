"""Propose a schema from sample rows, with the reason for each field's kind."""

from collections import Counter
from collections.abc import Collection, Iterable, Mapping, Sequence
from itertools import islice
from typing import Any, NamedTuple

import orjson

from worker.errors import DataError
from worker.features.kinds import KINDS, Field
from worker.features.kinds.base import MIN_ROWS, Sample
from worker.features.paths import MAX_MEMBERS, MAX_NAME, dots, inside, members_of, walk
from worker.features.schema import Schema
from worker.formats.base import Row
from worker.redaction import NOTHING, Redaction
from worker.texts import did_you_mean, quoted

SAMPLE_ROWS = 20_000
MAX_FIELDS = 20_000


class Proposal(NamedTuple):
    """A schema, and for each of its fields why it has this kind, how often it is missing, how many values it has.

    notes   what a person should know besides
    """

    schema: Schema
    comments: Mapping[str, str]
    notes: Sequence[str] = ()

    def to_toml(self) -> str:
        """The schema file's text with the comments above the fields."""
        return self.schema.to_toml(self.comments)


def infer_schema(
    rows: Iterable[Row], ignore: Collection[str] = (), *, limit: int = SAMPLE_ROWS, redaction: Redaction = NOTHING
) -> Proposal:
    """Propose a kind for every field of these rows; nested objects become dotted names.

    Every kind in KINDS says what speaks for it in the values of a field; the strongest evidence decides. A field that
    is constant, always null, mixed or an array is left out. It works badly where the first rows are not typical (a
    field that is constant until noon), where numbers are categories (an error code: it repeats, and looks like a
    quantity), and for labels, which it can't tell from any other field: read the proposal before you use it.

    rows        JSON objects; the first `limit` are looked at
    ignore      fields that must not reach the model, such as labels; they are listed with kind ignore
    redaction   masks the examples

    DataError where there are no rows, no field can be learned from, no row has a field named in `ignore`, or where
    there are more than 20,000 names: then names are data.

    >>> rows = [{"amount": n / 7, "shop": "web" if n % 3 else "till", "fraud": n % 9 == 0} for n in range(50)]
    >>> proposal = infer_schema(rows, ignore=["fraud"])
    >>> [(field.name, field.kind) for field in proposal.schema.fields]
    [('amount', 'numeric'), ('shop', 'categorical'), ('fraud', 'ignore')]
    >>> proposal.comments["shop"]
    'strings that repeat; 0% missing; 2 distinct; e.g. "till"'
    """
    sample = list(islice(rows, limit))
    if not sample:
        raise DataError("there are no rows to infer a schema from")
    values_of, too_long = _values_of(sample)
    for name in ignore:
        if name not in values_of and not any(inside(other, name) is not None for other in values_of):
            raise DataError(f"no row has a field {name!r}{did_you_mean(name, values_of)}")
    inner = {name for name in values_of if any(inside(name, outer) is not None for outer in ignore)}
    ignored = inner | set(ignore)
    ambiguous = _ambiguous(values_of)
    _require_names([name for name in values_of if name not in ignored])
    fields: list[Field] = []
    comments: dict[str, str] = {}
    options: Mapping[str, Any]
    for name, values in values_of.items():
        present = [value for value in values if value is not None]
        members = members_of(present)
        if any(present) and set(map(type, present)) in ({dict}, {list}) and set(map(type, members)) == {dict}:
            continue  # its fields stand for it
        distinct = len({(type(value), value) for value in members if not isinstance(value, list | dict)})
        if name in ignored:
            kind, why, options = "ignore", "left out on request", {}
        elif name in ambiguous:
            kind, why, options = "ignore", "sometimes an object, sometimes not", {}
        else:
            kind, why, options = _kind_of(present, distinct, len(sample))
        fields.append(KINDS[kind](name, **options))
        comments[name] = f"{why}; {100 * (1 - len(present) / len(sample)):.3g}% missing; {distinct} distinct"
        shown = redaction.record({name: present[0]})[name] if present else ""
        example = orjson.dumps(shown).decode().replace("\x7f", "")
        comments[name] += f"; e.g. {example:.40}{'...' if len(example) > 40 else ''}" if present else ""
    if not any(field.encoded for field in fields):
        reasons = "; ".join(f"{quoted(name)}: {comment.split(';')[0]}" for name, comment in list(comments.items())[:10])
        raise DataError(f"no field that a model could learn from ({reasons or 'the rows are empty'})")
    notes = [f"{too_long:,} names of more than {MAX_NAME:,} characters are left out"] if too_long else []
    return Proposal(Schema(tuple(fields)), comments, notes)


def _values_of(rows: Iterable[Row]) -> tuple[dict[str, list[Any]], int]:
    """The values of each field, in the order of the rows, and how many times a name was too long to be looked at."""
    values: dict[str, list[Any]] = {}
    too_long = 0
    for row in rows:
        fields, longer = walk(row)
        too_long += longer
        for name, value in fields.items():
            values.setdefault(name, []).append(value)
    return values, too_long


def _require_names(names: Sequence[str]) -> None:
    if len(names) > MAX_FIELDS:
        inside, count = Counter(name.rpartition(".")[0] for name in names).most_common(1)[0]
        where = f"in the object {quoted(inside)!r}" if inside else "at the top of the records"
        raise DataError(
            f"{len(names):,} field names, more than {MAX_FIELDS:,}; {count:,} of them {where}, where names seem to be "
            "data (ids, say): ignore it, or give each of them a record of its own"
        )


def _ambiguous(values_of: Mapping[str, Sequence[Any]]) -> set[str]:
    """Names that hold an object in some rows and a value in others, and names under one that ever holds a value."""
    types = {name: set(map(type, values)) for name, values in values_of.items()}
    mixed = {name for name in types if dict in types[name] and types[name] - {dict, type(None)}}
    below = {name for name in types if any(name[:at] in mixed for at in dots(name))}
    return below | mixed


def _kind_of(present: Sequence[Any], distinct: int, total: int) -> tuple[str, str, Mapping[str, Any]]:
    """The name of the kind that these values are of, why, and its options; total: number of rows."""
    types = set(map(type, present))
    if not present:
        return "ignore", "always null", {}
    if list in types:
        return _kind_of_arrays(present)
    if dict in types:
        return "ignore", "holds empty objects", {}
    if distinct == 1 and len(present) == total >= MIN_ROWS:
        return "ignore", "constant", {}
    sample = Sample(present, types, distinct)
    evidence = [(kind, said) for kind in KINDS if (said := KINDS[kind].infer(sample)) is not None]
    if evidence:
        kind, strongest = max(evidence, key=lambda entry: entry[1].strength)  # the first one of several
        return kind, strongest.why, strongest.options
    names = sorted({bool: "booleans", str: "strings"}.get(kind, "numbers") for kind in types)
    return "ignore", f"mixes {' and '.join(dict.fromkeys(names))}", {}


def _kind_of_arrays(present: Sequence[Any]) -> tuple[str, str, Mapping[str, Any]]:
    """The same where some of the values are arrays; a single value counts as an array of one."""
    members = members_of(present)
    if not members:
        return "set", "arrays that were always empty", {}
    if boxes := set(map(type, members)) & {list, dict}:
        return "ignore", "holds arrays of arrays" if list in boxes else "holds arrays of objects and values", {}
    distinct = len({(type(value), value) for value in members})
    kind, why, _ = _kind_of(members, distinct, 0)
    max_length = max(len(value) if type(value) is list else 1 for value in present)
    size = f"of up to {max_length:,}" + (f", of which {MAX_MEMBERS:,} are read" if max_length > MAX_MEMBERS else "")
    return ("numbers" if kind == "numeric" else "set"), f"arrays {size} members: {why}", {}
