from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from tests.features.common import STEADY
from worker.errors import SchemaError
from worker.features.kinds import Boolean, Categorical, Field, Id, Ignore, Numeric, Text, Timestamp
from worker.features.kinds.numeric import TRANSFORMS
from worker.features.kinds.timestamp import TIME_FORMATS
from worker.features.schema import Schema, load_schema, parse_schema

EXAMPLE = """
[fields.id]
kind = "id"
[fields.time]
kind = "timestamp"
format = "epoch_ms"
cyclical = ["hour"]
[fields."merchant.country"]
kind = "categorical"
max_values = 50
hash_buckets = 8
required = true
redact = true
[fields.amount]
kind = "numeric"
"""

FIELDS = st.one_of(
    st.builds(Numeric, st.text(), st.booleans(), st.booleans(), transform=st.sampled_from(TRANSFORMS)),
    *(
        st.builds(kind, st.text(), max_values=st.integers(1, 10**6), hash_buckets=st.integers(0, 10**6))
        for kind in (Categorical, Text)
    ),
    st.builds(
        Timestamp,
        st.text(),
        format=st.sampled_from(TIME_FORMATS),
        cyclical=st.sampled_from([(), ("hour", "weekday"), ("hour",)]),
    ),
    *(st.builds(kind, st.text(), redact=st.booleans()) for kind in (Id, Ignore, Boolean)),
)


def test_a_schema_file_is_read_with_all_its_options(tmp_path: Path) -> None:
    file = tmp_path / "schema.toml"
    file.write_text(EXAMPLE)

    schema = load_schema(file)

    assert schema.fields == (
        Id("id"),
        Timestamp("time", format="epoch_ms", cyclical=("hour",)),
        Categorical("merchant.country", required=True, redact=True, max_values=50, hash_buckets=8),
        Numeric("amount"),
    )
    assert schema.event_time_field == "time"
    assert schema.ids == ("id",)
    assert schema.redacted == {"merchant.country"}


@STEADY
@given(st.lists(FIELDS, max_size=5, unique_by=lambda field: field.name))
def test_to_toml_gives_back_the_same_schema(fields: list[Field]) -> None:
    schema = Schema((Numeric("always"), *(field for field in fields if field.name != "always")))

    comments = {field.name: "a comment, " + repr(field.name) for field in fields}
    again = parse_schema(schema.to_toml(comments))

    assert again == schema
    assert again.fingerprint == schema.fingerprint


def test_the_fingerprint_is_pinned() -> None:
    assert parse_schema(EXAMPLE).fingerprint == "6be040528c7edfb51c0804092236ea0d784e2ce17ffea47d86bed2a60637f2d5"


@pytest.mark.parametrize(
    "change",
    ['kind = "numeric"', 'kind = "categorical"\nmax_values = 51', 'kind = "categorical"\nredact = true'],
)
def test_every_option_is_in_the_fingerprint(change: str) -> None:
    base = parse_schema('[fields.a]\nkind = "categorical"')

    assert parse_schema(f"[fields.a]\n{change}").fingerprint != base.fingerprint


def test_a_default_that_is_written_out_is_no_change() -> None:
    written = '[fields.a]\nkind = "categorical"\nmax_values = 1024\nrequired = false'

    assert parse_schema(written).fingerprint == parse_schema('[fields.a]\nkind = "categorical"').fingerprint


@pytest.mark.parametrize(
    ("text", "said"),
    [
        ("[fields.a]\nkind = 'numric'", ["field 'a'", "'numric'", "did you mean 'numeric'"]),
        ("[fields.a]\nkind = []", ["field 'a'", "unknown kind"]),
        ("[fields.a]\nkind = 'numeric'\nrequird = true", ["field 'a'", "'requird'", "did you mean 'required'"]),
        ("[fields.a]\nkind = 'boolean'\nmax_values = 5", ["field 'a'", "boolean", "'max_values'"]),
        ("[fields.a]\nrequired = true", ["field 'a'", "no kind"]),
        ("[fields.a]\nkind = 'numeric'\nrequired = 1", ["field 'a'", "required = 1", "true or false"]),
        ("[fields.a]\nkind = 'numeric'\ntransform = 'log'", ["transform = 'log'", "log1p"]),
        ("[fields.a]\nkind = 'categorical'\nmax_values = 0", ["max_values = 0", "1 to 1000000"]),
        ("[fields.a]\nkind = 'categorical'\nmax_values = true", ["max_values = True"]),
        ("[fields.a]\nkind = 'timestamp'\nformat = 'epoch'", ["format = 'epoch'", "epoch_ms"]),
        ("[fields.a]\nkind = 'timestamp'\nformat = '%Q'", ["format = '%Q'", "strptime"]),
        ("[fields.a]\nkind = 'timestamp'\ncyclical = ['year']", ["cyclical", "hour, weekday"]),
        ("[fields.a.b]\nkind = 'numeric'", ["field 'a'", '[fields."a.b"]']),
        ("[fields]\na = 'numeric'", ["field 'a'", "table"]),
        ("[field.a]\nkind = 'numeric'", ["'field'", "did you mean 'fields'"]),
        ("fields = 1", ["[fields.NAME]"]),
        ("", ["no field"]),
        ("[fields.a]\nkind = 'id'\n[fields.b]\nkind = 'ignore'", ["no field"]),
        ("[fields.a]\nkind = 'numeric'\n[fields.a]\nkind = 'id'", ["not valid TOML", "'a'"]),
        ("[fields.a", ["not valid TOML"]),
        (
            "[fields.a]\nkind='timestamp'\nevent_time=true\n[fields.b]\nkind='timestamp'\nevent_time=true",
            ["event time", "'a'", "'b'"],
        ),
    ],
)
def test_a_mistake_is_named_with_file_and_field(tmp_path: Path, text: str, said: list[str]) -> None:
    file = tmp_path / "wrong.toml"
    file.write_text(text)

    with pytest.raises(SchemaError) as caught:
        load_schema(file)

    for part in ["wrong.toml", *said]:
        assert part in str(caught.value)


def test_a_file_that_is_not_there_is_named(tmp_path: Path) -> None:
    with pytest.raises(SchemaError, match=r"absent\.toml"):
        load_schema(tmp_path / "absent.toml")


def test_a_field_can_not_appear_twice() -> None:
    with pytest.raises(SchemaError, match="'a' appears twice"):
        Schema((Numeric("a"), Boolean("a")))


def test_without_removes_a_field_and_what_is_nested_in_it() -> None:
    schema = Schema((Numeric("label"), Text("label.kind"), Numeric("labels")))

    assert schema.without(["label", "unknown"]).fields == (Numeric("labels"),)
    assert schema.without([]) is schema


def test_nothing_to_learn_from_is_an_error_also_after_without() -> None:
    with pytest.raises(SchemaError, match="no field"):
        Schema((Numeric("a"), Id("b"))).without(["a"])


def test_the_event_time_is_the_marked_timestamp_or_the_first() -> None:
    first, second = Timestamp("a"), Timestamp("b")
    marked = Timestamp("b", event_time=True)

    assert Schema((first, second)).event_time_field == "a"
    assert Schema((first, marked)).event_time_field == "b"
    assert Schema((Numeric("n"),)).event_time_field is None


@STEADY
@given(st.text())
def test_any_text_is_a_schema_or_a_schema_error(text: str) -> None:
    try:
        parse_schema(text)
    except SchemaError as error:
        assert str(error)  # noqa: PT017 - both ends are right
