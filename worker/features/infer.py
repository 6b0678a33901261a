"""Propose a schema from sample rows, with the reason for each field's kind."""

from collections import Counter
from collections.abc import Collection, Iterable, Iterator, Mapping, Sequence
from itertools import islice
from typing import Any, NamedTuple

import orjson

from worker.errors import DataError
from worker.features.choice import MAX_STRAYS, Choice, as_amounts, choose_kind, count_distinct
from worker.features.clocks import find_clock, is_written
from worker.features.kinds import Field
from worker.features.labels import is_label
from worker.features.maps import OpenMap, open_maps
from worker.features.paths import MAX_NAME, dots, inside, members_of, walk
from worker.features.schema import Schema
from worker.features.values import without_missing
from worker.features.wrapping import wrapping_notes
from worker.formats.base import Row
from worker.redaction import MASK, NOTHING, Redaction
from worker.texts import did_you_mean, quoted, shortened

SAMPLE_ROWS = 20_000
MAX_FIELDS = 20_000
MAX_NOTES = 20
MAX_NAMED = 8  # fields of one note
MAX_EXAMPLE = 40  # characters


class Proposal(NamedTuple):
    """A schema, and for each of its fields why it has this kind, how often it is missing, how many values it has.

    notes     what a person should know besides, what matters most first
    labels    fields that look like labels
    summary   how much of the records reaches the model
    """

    schema: Schema
    comments: Mapping[str, str]
    notes: Sequence[str] = ()
    labels: Sequence[str] = ()
    summary: str = ""

    def to_toml(self) -> str:
        """The schema file's text with the comments above the fields."""
        return self.schema.to_toml(self.comments)

    def lines(self) -> list[str]:
        """The most important notes, and the summary."""
        rest = len(self.notes) - MAX_NOTES
        more = [f"and {rest:,} more: see the comments in the schema"] if rest > 0 else []
        return [*self.notes[:MAX_NOTES], *more, self.summary]


class _Column(NamedTuple):
    """A field of the sample: its values that are there, in order, how many differ, and what it is."""

    present: Sequence[Any]
    distinct: int
    choice: Choice

    @property
    def reached(self) -> int:
        """Values that the model sees."""
        return len(self.present) - len(self.choice.strays) if self.choice.field("").encoded else 0


def infer_schema(
    rows: Iterable[Row], ignore: Collection[str] = (), *, limit: int = SAMPLE_ROWS, redaction: Redaction = NOTHING
) -> Proposal:
    """Propose a kind for every field of these rows; nested objects become dotted names.

    What decides is told by `choose_kind`. A field that is always null, mixed, or only grows is left out, one that never
    varied is kept. Every choice that is doubtful, or loses something, is a note. It works badly
    where the rows are not typical of what will come, and for labels, which it only knows by their names: read the
    proposal before you use it.

    rows        JSON objects in their order, spread over all there are; the first `limit` are looked at
    ignore      fields that must not reach the model, such as labels; they are listed with kind ignore
    redaction   masks the examples

    DataError where there are no rows, no field can be learned from, no row has a field named in `ignore`, or where
    there are more than 20,000 names: then names are data.

    >>> rows = [{"amount": n * 7 % 50 / 7, "shop": "web" if n % 3 else "till", "fraud": n % 9 == 0} for n in range(50)]
    >>> proposal = infer_schema(rows, ignore=["fraud"])
    >>> [(field.name, field.kind) for field in proposal.schema.fields]
    [('amount', 'numeric'), ('shop', 'categorical'), ('fraud', 'ignore')]
    >>> proposal.comments["shop"]
    'strings that repeat; 0% missing; 2 distinct; e.g. "till"'
    >>> proposal.summary
    '2 of 3 fields reach the model, with 66.7% of the values in these records (ignore: fraud)'
    """
    sample = list(islice(rows, limit))
    if not sample:
        raise DataError("there are no rows to infer a schema from")
    maps = open_maps(sample, ignore)
    values_of, too_long = _values_of(sample, maps)
    for name in ignore:
        if name not in values_of and not any(inside(other, name) is not None for other in values_of):
            raise DataError(f"no row has a field {name!r}{did_you_mean(name, values_of)}")
    ignored = {name for name in values_of if any(inside(name, outer) is not None for outer in ignore)}.union(ignore)
    _require_names([name for name in values_of if name not in ignored])
    objects, mixtures = _objects(values_of)
    named = {name: values for name, values in values_of.items() if name in maps or name not in objects}
    columns = {
        name: _column_of(name, values, len(sample), mixtures, maps.get(name), is_ignored=name in ignored)
        for name, values in named.items()  # of objects the fields stand for them
    }
    columns |= _far_from_times(columns)
    fields = tuple(column.choice.field(name) for name, column in columns.items())
    if not any(field.encoded for field in fields):
        reasons = "; ".join(f"{quoted(name)}: {column.choice.why}" for name, column in islice(columns.items(), 10))
        raise DataError(f"no field that a model could learn from ({reasons or 'the rows are empty'})")
    comments = {name: _comment(name, column, len(sample), redaction) for name, column in columns.items()}
    labels = [n for n, c in columns.items() if c.choice.field("").encoded and is_label(n, c.distinct, len(c.present))]
    notes = wrapping_notes(sample)
    notes += [f"{quoted(name)} looks like a label: unless it is left out, the model learns it" for name in labels]
    notes += _notes(columns, {name: comment.partition("\n")[2] for name, comment in comments.items()})
    notes += [f"{quoted(name)}: {text}" for name, text in objects.items() if text]
    notes += [f"{too_long:,} names of more than {MAX_NAME:,} characters are left out"] if too_long else []
    return Proposal(Schema(fields), comments, notes, labels, _summary(columns))


def _column_of(
    name: str,
    values: Sequence[Any],
    total: int,
    mixtures: Mapping[str, str],
    map_of: OpenMap | None,
    *,
    is_ignored: bool,
) -> _Column:
    present = [value for value in values if value is not None]
    if is_ignored:
        choice = Choice("ignore", "left out on request")
    elif map_of is not None:
        choice = map_of.choice
    elif (why := next((mixtures[part] for part in _with_parents(name) if part in mixtures), None)) is not None:
        choice = Choice("ignore", why, doubt="left out")
    else:
        choice = choose_kind(name, present, total)
    return _Column(present, count_distinct(present) if map_of is None else map_of.keys, choice)


def _far_from_times(columns: Mapping[str, _Column]) -> dict[str, _Column]:
    """Those of the columns that only look like times beside the times that the records have in strings, as amounts."""
    clock = find_clock((column.choice.field(""), column.present) for column in columns.values())
    far = {}
    for name, column in columns.items():
        field = column.choice.field("")
        if clock is None or not field.is_time or is_written(field, column.present):
            continue
        if not clock.fits(field, column.present):
            far[name] = column._replace(choice=as_amounts(column.present))
    return far


def _values_of(rows: Iterable[Row], maps: Mapping[str, OpenMap]) -> tuple[dict[str, list[Any]], int]:
    """The values of each field, in the order of the rows, and how many times a name was too long to be looked at."""
    values: dict[str, list[Any]] = {}
    too_long, usual = 0, {name: map_of.usual for name, map_of in maps.items()}
    for row in rows:
        is_flat = {dict, list}.isdisjoint(map(type, row.values())) and max(map(len, row), default=0) <= MAX_NAME
        fields, longer = (row, 0) if is_flat else walk(row, usual)
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


def _objects(values_of: Mapping[str, Sequence[Any]]) -> tuple[dict[str, str], dict[str, str]]:
    """Names of objects and of arrays of objects, whose fields stand for them, each with a doubt where a few records
    hold something else; and names that are now an object, now a value, so that neither they nor what is below them can
    be read, with the reason.
    """
    objects, mixtures = dict[str, str](), dict[str, str]()
    for name, values in values_of.items():
        if set(map(type, values)).isdisjoint({dict, list}):  # as most
            continue
        shapes = Counter(map(_shape, values))
        del shapes[None]
        if not shapes["object"]:
            del shapes["empty array"]
        shape, count = shapes.most_common(1)[0] if shapes else ("value", 0)
        others = shapes.total() - count
        if not shapes.keys() & {"object", "array of objects"}:
            continue
        if others > MAX_STRAYS * shapes.total():
            mixtures[name] = f"sometimes an {'object' if shapes['object'] else 'array of objects'}, sometimes not"
        elif shape in ("value", "empty array"):
            mixtures[f"{name}."] = "in a field that is hardly ever an object"
        else:
            doubt = f"{others:,} of {shapes.total():,} values are no {shape}, and not looked at"
            objects[name] = doubt if others else ""
    return objects, mixtures


def _shape(value: Any) -> str | None:
    """What a value is as a place for fields; None where it has none and may be any of them."""
    if value is None or type(value) is dict:
        return "object" if value else None
    if value == []:
        return "empty array"  # of objects, perhaps, but no object
    is_array = type(value) is list and set(map(type, members_of([value]))) == {dict}
    return "array of objects" if is_array else "value"


def _with_parents(name: str) -> Iterator[str]:
    """The name, and the objects and arrays around it, these also with a dot at the end."""
    yield name
    for at in dots(name):
        outer = name[:at].removesuffix("[]")
        yield outer
        yield outer + "."


def _comment(name: str, column: _Column, total: int, redaction: Redaction) -> str:
    """What stands above a field in the schema file: a line of facts, and one of doubts where there are any."""
    present, choice = column.present, column.choice
    field = choice.field(name)
    there = [v for v in without_missing(present, set(map(type, present)), field.gaps()) if v is not None]

    def shown(value: Any) -> str:
        text = orjson.dumps(MASK if redaction.touches(name) else value).decode().replace("\x7f", "")
        return text if len(text) <= MAX_EXAMPLE else f"{text[:MAX_EXAMPLE]}..."

    facts = f"{choice.why}; {100 * (1 - len(there) / total):.3g}% missing; {column.distinct} distinct"
    facts += f"; e.g. {shown(there[0])}" if there else ""
    doubts = [choice.doubt] if choice.doubt else []
    if choice.strays:
        example = shown(present[choice.strays[0]])
        doubts.insert(0, f"{len(choice.strays):,} of {len(present):,} values are something else, such as {example}")
    rare = _rare(field, column.distinct)
    doubts += [rare] if rare else []
    return f"{facts}\n{'; '.join(doubts)}" if doubts else facts


def _rare(field: Field, distinct: int) -> str:
    """What a vocabulary loses; empty where nothing is lost, or what is looked up in it is not the value itself."""
    limit, buckets = field.vocabulary_limit()
    if not field.has_categories or field.parts or buckets or limit is None or distinct <= limit:
        return ""
    return f"only the {limit:,} most frequent of {distinct:,} values are told apart"


def _notes(columns: Mapping[str, _Column], doubts: Mapping[str, str]) -> list[str]:
    """The doubtful choices, those that lose most values first, then what is always null and what never varied."""
    doubtful = [name for name in columns if doubts[name]]
    doubtful.sort(key=lambda name: columns[name].reached - len(columns[name].present))
    notes = [f"{quoted(name)} ({_kind_and_why(columns[name].choice)}): {doubts[name]}" for name in doubtful]
    empty = [name for name, column in columns.items() if not column.present]
    constant = [name for name, column in columns.items() if column.choice.constant]
    notes += [f"always null, so nothing is known of them: {_named(empty)}"] if empty else []
    notes += [f"never varied yet, kept so that another value stands out: {_named(constant)}"] if constant else []
    return notes


def _kind_and_why(choice: Choice) -> str:
    return f"{choice.kind}, {choice.why}"


def _named(names: Sequence[str]) -> str:
    return shortened([quoted(name) for name in names], MAX_NAMED)


def _summary(columns: Mapping[str, _Column]) -> str:
    encoded = [name for name, column in columns.items() if column.choice.field("").encoded]
    reached = sum(column.reached for column in columns.values())
    share = reached / max(1, sum(len(column.present) for column in columns.values()))
    rest: dict[str, list[str]] = {}
    for name, column in columns.items():
        if name not in encoded:
            rest.setdefault(column.choice.kind, []).append(name)
    left_out = "; ".join(f"{kind}: {_named(names)}" for kind, names in rest.items())
    fields = f"{len(encoded):,} of {len(columns):,} fields reach the model"
    text = f"{fields}, with {100 * share:.3g}% of the values in these records"
    return f"{text} ({left_out})" if left_out else text
