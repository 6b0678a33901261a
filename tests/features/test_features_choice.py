"""What decides where the values of a field do not agree, and what is said of it."""

import random
from collections.abc import Sequence
from datetime import UTC, datetime, timedelta
from typing import Any

import pytest

from tests.features.common import rows_of
from worker.features.infer import MAX_NOTES, Proposal, infer_schema
from worker.formats.base import Row
from worker.redaction import Redaction

N = 1_500
DRAW = random.Random(5)
START = datetime(2026, 3, 1, tzinfo=UTC)


def proposal_for(values: Sequence[Any]) -> Proposal:
    return infer_schema([row | {"other": n % 7} for n, row in enumerate(rows_of(values))])


def kind_of(proposal: Proposal, name: str = "x") -> str:
    return next(field.kind for field in proposal.schema.fields if field.name == name)


def note_of(proposal: Proposal, name: str = "x") -> str:
    return next((note for note in proposal.notes if note.startswith(name)), "")


def with_strays(values: Sequence[Any], strays: Sequence[Any], share: float = 0.03) -> list[Any]:
    mixed = list(values)
    for count, at in enumerate(DRAW.sample(range(len(mixed)), round(share * len(mixed)))):
        mixed[at] = strays[count % len(strays)]
    return mixed


AMOUNTS = [round(DRAW.lognormvariate(3, 1), 2) for _ in range(N)]
TIMES = [(START + timedelta(seconds=DRAW.randrange(10**6))).isoformat() for _ in range(N)]
SHOPS = [DRAW.choice(["till", "web", "app"]) for _ in range(N)]
STRAYS: dict[str, tuple[str, list[Any]]] = {
    "one text among numbers": ("numeric", with_strays(AMOUNTS, ["3 of 4"], 1 / N)),
    "many texts among numbers": ("numeric", with_strays(AMOUNTS, ["broken", "?", "see above", "3 of 4"])),
    "texts among numbers in strings": ("numeric", with_strays([f"{x:.2f}" for x in AMOUNTS], ["a", "b", "3 o", "+"])),
    "arrays among numbers": ("numeric", with_strays(AMOUNTS, [[1], [2]])),
    "objects among numbers": ("numeric", with_strays(AMOUNTS, [{"value": 1}])),
    "truth values among numbers": ("numeric", with_strays(AMOUNTS, [True])),
    "texts among times": ("timestamp", with_strays(TIMES, ["never", "soon"])),
    "numbers among truth values": ("boolean", with_strays([n % 3 == 0 for n in range(N)], [1.5, "maybe"])),
    "arrays among names": ("categorical", with_strays(SHOPS, [["till", "web"]])),
    "fractions among names": ("categorical", with_strays(SHOPS, [1.5])),
    "numbers among sentences": (
        "text",
        with_strays([f"user {n} logged in from {x}" for n, x in enumerate(TIMES)], [7]),
    ),
}


@pytest.mark.parametrize("name", STRAYS)
def test_a_few_strays_do_not_decide_and_are_named(name: str) -> None:
    kind, values = STRAYS[name]
    proposal = proposal_for(values)

    assert kind_of(proposal) == kind
    assert "values are something else, such as " in note_of(proposal)
    assert "something else" in proposal.comments["x"]


def test_as_many_strays_as_that_are_a_mixture() -> None:
    proposal = proposal_for(with_strays(AMOUNTS, ["broken", "?"], 0.2))

    assert kind_of(proposal) == "ignore"
    assert note_of(proposal) == "x (ignore, mixes numbers and strings): left out"


def test_a_stray_of_a_redacted_field_is_not_shown() -> None:
    rows: list[Row] = [{"x": value} for value in with_strays(AMOUNTS, ["4012-8888"], 0.01)]
    proposal = infer_schema(rows, redaction=Redaction(["x"]))

    assert "4012" not in "".join([*proposal.notes, proposal.to_toml()])


def test_where_an_object_is_mostly_one_its_fields_are_proposed() -> None:
    rows: list[Row] = [{"user": {"country": SHOPS[n]} if n % 50 else "root"} for n in range(N)]
    proposal = infer_schema(rows)

    assert [(field.name, field.kind) for field in proposal.schema.fields] == [("user.country", "categorical")]
    assert note_of(proposal, "user") == "user: 30 of 1,500 values are no object, and not looked at"


def test_where_a_value_is_hardly_ever_an_object_the_fields_of_that_are_left_out() -> None:
    rows: list[Row] = [{"user": SHOPS[n] if n % 50 else {"country": "DE"}} for n in range(N)]
    proposal = infer_schema(rows)

    assert [(field.name, field.kind) for field in proposal.schema.fields] == [
        ("user", "categorical"),
        ("user.country", "ignore"),
    ]


def test_what_is_now_an_object_now_a_value_is_left_out_and_named() -> None:
    rows: list[Row] = [{"user": SHOPS[n] if n % 2 else {"country": "DE"}, "x": n % 7} for n in range(N)]
    proposal = infer_schema(rows)

    assert [field.name for field in proposal.schema.encoded] == ["x"]
    assert "sometimes an object, sometimes not" in note_of(proposal, "user ")
    assert "sometimes an object, sometimes not" in note_of(proposal, "user.country")


def test_what_only_grows_is_left_out_and_named_and_times_are_not() -> None:
    rows: list[Row] = [
        {
            "pid": 900 + n // 3,
            "energy": n * 0.37,
            "day": f"0811{9 + 3 * n // N:02d}",
            "at": 1_780_000_000 + n,
            "y": n % 7,
        }
        for n in range(N)
    ]
    proposal = infer_schema(rows)

    assert {field.name: field.kind for field in proposal.schema.fields if field.name != "y"} == {
        "pid": "id",
        "energy": "ignore",
        "day": "ignore",
        "at": "timestamp",
    }
    for name in ("pid", "energy", "day"):
        assert "only grows" in note_of(proposal, name)
    assert note_of(proposal, "at") == ""


@pytest.mark.parametrize(
    ("name", "values"),
    [
        ("Day", [10]),
        ("event.month", ["Dec"]),
        ("hourOfDay", [9, 10]),
        ("Date", ["081109", "081110"]),
        ("at", [20261102, 20261103]),
    ],
)
def test_a_date_that_hardly_moved_is_left_out_for_the_next_one_is_no_anomaly(name: str, values: list[Any]) -> None:
    rows: list[Row] = [{name: values[n * len(values) // N], "x": n % 7} for n in range(N)]
    proposal = infer_schema(rows)

    assert kind_of(proposal, name) == "ignore"
    assert "hardly moved" in note_of(proposal, name)


def test_what_moves_to_and_fro_or_is_no_date_is_kept() -> None:
    rows: list[Row] = [
        {"day": n % 2, "code": "991342", "release": "v1.2" if n < N / 2 else "v1.3", "today": "x"} for n in range(N)
    ]

    assert infer_schema(rows).schema.encoded == infer_schema(rows).schema.fields


def test_what_never_varied_is_kept_and_what_was_always_null_is_named() -> None:
    rows: list[Row] = [{"currency": "EUR", "version": 3, "live": True, "voucher": None, "x": n % 7} for n in range(N)]
    proposal = infer_schema(rows)

    assert {field.name for field in proposal.schema.encoded} == {"currency", "version", "live", "x"}
    assert "always null, so nothing is known of them: voucher" in proposal.notes
    assert "never varied yet, kept so that another value stands out: currency, version, live" in proposal.notes


def test_more_names_than_a_vocabulary_holds_are_said() -> None:
    proposal = proposal_for([f"u{n % 2_000}" for n in range(6_000)])

    assert note_of(proposal) == (
        "x (categorical, strings that repeat): only the 1,024 most frequent of 2,000 values are told apart"
    )


@pytest.mark.parametrize(
    "name", ["label", "is_fraud", "isAnomaly", "class", "target", "attack_cat", "event.outcome", "y"]
)
def test_a_field_that_looks_like_a_label_is_named_first(name: str) -> None:
    rows: list[Row] = [{"x": n % 7 / 2, "pid": n, name: n % 9 == 0} for n in range(N)]
    proposal = infer_schema(rows)

    assert list(proposal.labels) == [name]
    assert proposal.notes[0].startswith(f"{name} looks like a label")
    assert infer_schema(rows, [name]).labels == []


@pytest.mark.parametrize(
    ("name", "values"),
    [
        ("target_ip", ["a", "b"]),
        ("class", [f"c{n}" for n in range(60)]),
        ("classification", ["a"]),
        ("user", ["a", "b"]),
    ],
)
def test_other_names_and_other_values_are_no_label(name: str, values: list[str]) -> None:
    rows: list[Row] = [{name: DRAW.choice(values), "x": n % 7} for n in range(N)]

    assert infer_schema(rows).labels == []


def test_only_the_notes_that_matter_most_are_shown() -> None:
    mixed = {f"m{number}": [1.5, "a", True] for number in range(30)}
    rows: list[Row] = [{name: values[n % 3] for name, values in mixed.items()} | {"x": n % 7} for n in range(90)]
    lines = infer_schema(rows).lines()

    assert len(lines) == MAX_NOTES + 2
    assert lines[-2] == "and 10 more: see the comments in the schema"


def test_the_summary_says_what_share_of_the_records_reaches_the_model() -> None:
    rows: list[Row] = [{"x": n % 7, "id": f"o-{n}", "note": None if n % 2 else [[n]]} for n in range(100)]

    assert infer_schema(rows).summary.startswith(
        "1 of 3 fields reach the model, with 40% of the values in these records (id: id"
    )
