import pytest

from devtools import traffic
from worker.features.schema import parse_schema
from worker.features.unread import unread_note
from worker.formats.base import Row
from worker.model.learn import fit_bundle
from worker.model.network.options import FitOptions

ROWS: list[Row] = [{"user": {"name": "ann"}, "tags": [{"key": "a"}], "n": at, "x": None} for at in range(30)]


@pytest.mark.parametrize(
    ("name", "kind", "note"),
    [
        ("user.name", "categorical", None),
        ("tags[].key", "set", None),
        ("user.nam", "categorical", "'user.nam' (did you mean 'user.name'?)"),
        ("tags.key", "categorical", "'tags.key' (did you mean 'tags[].key'?)"),
        ("N", "numeric", "'N'"),
        ("x", "numeric", "'x'"),
        ("nmae", "id", "'nmae'"),
        ("nmae", "ignore", None),
    ],
)
def test_a_field_that_no_record_has_is_named_with_the_nearest(name: str, kind: str, note: str | None) -> None:
    schema = parse_schema(f'[fields."{name}"]\nkind = "{kind}"\n[fields.n]\nkind = "numeric"')

    said = unread_note(schema, ROWS)

    assert said == (None if note is None else f"none of 30 records has a value in {note}")


def test_among_first_records_only_what_is_like_another_name_is_said() -> None:
    schema = parse_schema('[fields.rare]\nkind = "numeric"\n[fields."user.nmae"]\nkind = "categorical"')

    assert "rare" in (unread_note(schema, ROWS) or "")
    assert unread_note(schema, ROWS, misspelt=True) == (
        "none of 30 records has a value in 'user.nmae' (did you mean 'user.name'?)"
    )
    assert unread_note(schema, []) is None


def test_many_such_fields_are_counted() -> None:
    schema = parse_schema("".join(f'[fields.{letter}{letter}]\nkind = "numeric"\n' for letter in "abcdefgh"))

    assert (unread_note(schema, ROWS) or "").endswith("'ee' and 3 more")


def test_a_fit_notes_it_in_its_report() -> None:
    schema = parse_schema(traffic.SCHEMA_TEXT + '[fields.amuont]\nkind = "numeric"\n')
    rows = traffic.rows(200)

    bundle = fit_bundle(schema, rows, FitOptions(hidden=(4,), steps=5), created_at="2026-01-01T00:00:00Z")

    assert any("amuont" in note for note in bundle.report["notes"])
