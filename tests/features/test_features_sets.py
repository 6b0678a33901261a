import random
import time
from collections import Counter
from typing import Any

import numpy as np
import pytest

from tests.features.common import decoded, encode, one_field, through_json
from worker.features.infer import infer_schema
from worker.features.inject import anomalies, inject
from worker.features.kinds import Numbers, Numeric, SetOfNames
from worker.features.kinds.sets import MAX_MEMBER
from worker.features.learned import Special
from worker.features.paths import MAX_MEMBERS, value_of
from worker.features.schema import Schema, parse_schema, read_columns
from worker.features.vectorize import Vectorizer, conceal, fit_vectorizer
from worker.formats.base import Row
from worker.redaction import Redaction, revive

GROUPS = [["staff"], ["staff", "dev"], ["staff", "ops"], [], ["staff", "dev"], ["ops"]] * 20


def category_of(values: list[Any], value: Any, **options: Any) -> Any:
    """What a fit on these values takes a value for."""
    schema, fitted = one_field("set", values, **options)
    return fitted.categorical[0].value(int(encode(schema, fitted, [value]).category_ids[0, 0]))


@pytest.mark.parametrize(
    ("value", "category"),
    [
        (["staff"], "staff"),
        (["dev", "staff"], "dev"),
        (["staff", "dev", "staff"], "dev"),
        ("ops", "ops"),
        ([], "(empty)"),
        (["staff", "admins"], Special.UNKNOWN),
        ([{"name": "staff"}], Special.UNKNOWN),
        ([["staff"]], Special.UNKNOWN),
        (None, Special.MISSING),
        (..., Special.MISSING),
    ],
)
def test_the_category_of_a_set_is_its_rarest_member_or_one_that_was_never_seen(value: Any, category: Any) -> None:
    assert category_of([*GROUPS, None], value) == category


@pytest.mark.parametrize(
    ("value", "category"),
    [
        ([1], "1"),
        ([1.5, 1], "1.5"),
        ([True], "true"),
        (["1"], "1"),
        ([None], "(null)"),
        ([False], Special.UNKNOWN),
        ([0], Special.UNKNOWN),
    ],
)
def test_members_are_texts_whatever_their_type(value: Any, category: Any) -> None:
    assert category_of([[1], [1], [1.5], [1.5], [True], [True], [None], [None]], value) == category


def test_any_and_all_of_truth_values_are_told_apart() -> None:
    rows: list[Row] = [{"c": [{"privileged": False}] * 2} for _ in range(50)] + [{"c": [{"privileged": True}]}] * 2
    schema = infer_schema([row | {"n": at % 7} for at, row in enumerate(rows)]).schema
    fitted = fit_vectorizer(schema, rows)

    def read(*flags: bool) -> Any:
        row = {"c": [{"privileged": flag} for flag in flags]}
        ids = Vectorizer(fitted).transform(decoded([row])).category_ids
        return fitted.categorical[0].value(int(ids[0, 0]))

    assert schema.fields[0] == SetOfNames("c[].privileged")
    assert [read(False), read(False, True), read(True, True)] == ["false", "true", "true"]


@pytest.mark.parametrize(
    ("value", "category"),
    [
        ({"tier": "gold"}, "tier=gold"),
        ({"tier": "gold", "team": "x9"}, "team=*"),
        ({"team": "new"}, "team=*"),
        ({"tier": "lead"}, Special.UNKNOWN),
        ({"owner": "bob"}, Special.UNKNOWN),
        ({"tier": "gold", "amount": 7}, "tier=gold"),
        ({"tier": {"a": 1}}, Special.UNKNOWN),
        ({}, "(empty)"),
    ],
)
def test_a_map_is_the_set_of_its_entries_and_a_key_of_ever_new_values_counts_itself(value: Any, category: Any) -> None:
    maps: list[Any] = [
        {"tier": "gold" if at % 3 else "free"} | ({} if at % 4 else {"team": f"t{at}"}) for at in range(200)
    ]

    assert category_of([*maps, {}, {}], value, leave_out=["amount"]) == category


def test_where_ever_new_members_are_usual_another_one_is_a_rare_value() -> None:
    values = [["a"] if at % 5 else [f"id-{at}"] for at in range(300)]

    assert category_of(values, ["id-7777"]) == Special.OTHER
    assert category_of(values, ["a"]) == "a"


def test_ever_new_keys_of_a_map_are_rare_values() -> None:
    values = [{"a": "1"} if at % 5 else {f"key-{at}": "1"} for at in range(300)]

    assert category_of(values, {"key-7777": "1"}) == Special.OTHER


def test_counts_are_those_of_records_and_equal_a_plain_reference() -> None:
    rng = random.Random(5)
    values = [rng.choices("abcdefghij", weights=range(1, 11), k=rng.randrange(1, 5)) for _ in range(500)]
    counts = Counter(member for value in values for member in set(value))
    order = sorted(counts, key=lambda member: (-counts[member], member))

    schema, fitted = one_field("set", values)
    vectors = encode(schema, fitted, values)

    assert list(fitted.categorical[0].values) == order
    seen = [fitted.categorical[0].value(category_id) for category_id in vectors.category_ids[:, 0].tolist()]
    assert seen == [max(value, key=order.index) for value in values]
    lengths = [fitted.numeric[0].scaling.invert(z) for z in vectors.numeric[:, 0].tolist()]
    assert np.allclose(lengths, list(map(len, values)))


def test_the_vocabulary_is_bounded_and_the_rarest_share_one_id() -> None:
    values = [[f"m{at % (50 + at % 7)}"] * 2 for at in range(2000)]

    assert category_of(values, ["m56"], max_values=10) == Special.OTHER


@pytest.mark.parametrize(
    ("values", "numbers"),
    [
        ([3, 1, 2], [1.0, 3.0, 3.0]),
        ([5], [5.0, 5.0, 1.0]),
        (7.5, [7.5, 7.5, 1.0]),
        (["1.5", "x", None, {}, [], True, 10**400], [1.5, 1.5, 1.0]),
        ([], None),
        (["x"], None),
        ("x", None),
        ({}, None),
        (float("inf"), None),
    ],
)
def test_of_several_numbers_the_model_sees_the_ends_and_how_many(values: Any, numbers: list[float] | None) -> None:
    column, failures = Numbers("x").read([values, None])

    assert failures == {}
    assert column.missing is not None
    assert column.missing.tolist() == [numbers is None, True]
    if numbers is not None:
        assert [part[0] for part in Numbers("x").numbers(column)] == numbers


def test_a_proposal_reaches_the_members_of_arrays_of_objects() -> None:
    rng = random.Random(1)
    rows: list[Row] = [
        {
            "n": at % 5,
            "spec": {
                "containers": [
                    {
                        "image": rng.choice("ab"),
                        "sc": {"privileged": False},
                        "args": ["x"],
                        "cpu": rng.random(),
                    }
                    for _ in range(1 + at % 3)
                ]
            },
        }
        for at in range(100)
    ]

    schema = infer_schema(rows).schema

    kinds = {field.name: field.kind for field in schema.fields}
    assert kinds == {
        "n": "numeric",
        "spec.containers[].image": "set",
        "spec.containers[].sc.privileged": "set",
        "spec.containers[].args": "set",
        "spec.containers[].cpu": "numbers",
    }
    assert parse_schema(schema.to_toml()) == schema
    assert Vectorizer(fit_vectorizer(schema, rows)).transform(decoded(rows)).rejects == []


@pytest.mark.parametrize(
    ("value", "reads"),
    [
        ([{"b": 1}, {"b": 2}], [1, 2]),
        ([{"b": [1, 2]}, {"b": [3]}], [1, 2, 3]),
        ({"b": 1}, [1]),
        ([{"c": 1}, {"b": None}, 5, "x"], []),
        ([], []),
        (5, []),
        (None, None),
    ],
)
def test_a_path_through_an_array_is_an_array(value: Any, reads: Any) -> None:
    assert value_of({"a": value}, "a[].b") == reads
    assert value_of({"z": {"a": value}}, "z.a[].b") == reads


def test_paths_through_arrays_have_the_literal_key_first_and_keys_with_dots() -> None:
    assert value_of({"a": [{"b.c": 1}]}, "a[].b.c") == [1]
    assert value_of({"x.a": [{"b": [{"c": 2}]}]}, "x.a[].b[].c") == [2]
    assert value_of({"a[].b": 7, "a": [{"b": 1}]}, "a[].b") == 7
    assert value_of({"a[]": {"b": 8}, "a": [{"b": 1}]}, "a[].b") == 8
    assert value_of({"a": [1, 2]}, "a[]") == [1, 2]


def test_no_member_of_a_redacted_set_is_in_what_is_learned_or_kept_and_ids_stay_the_same() -> None:
    rows: list[Row] = [
        {
            "n": at,
            "groups": [f"secret-{at % 3}", "staff"],
            "tags": {"owner-key": f"secret-{at % 4}", "secret-k": f"{at}="},
        }
        for at in range(80)
    ]
    schema = Schema((SetOfNames("groups"), SetOfNames("tags")))
    plain = fit_vectorizer(schema, rows)
    redaction = Redaction(["groups", "tags.owner-key"], secret="s")

    fitted = fit_vectorizer(schema, rows, redaction=redaction)
    kept = through_json([row for row in conceal(fitted, redaction, rows) if row])
    again = [revive(row, fitted.redacted) for row in kept]

    for text in (repr(fitted.to_json()), repr(kept)):
        assert "secret" not in text
        assert "owner-key" not in text.replace("'tags.owner-key'", "")
        assert "staff" not in text
    assert fitted.redacted == ("groups", "tags")
    ids = Vectorizer(fitted, redaction).transform(decoded(rows)).category_ids
    assert (Vectorizer(fitted, redaction).transform(decoded(again)).category_ids == ids).all()
    assert conceal(fitted, redaction, again) == again
    unknown = {"groups": ["secret-9", "staff"], "tags": {"owner-key": "secret-0"}}
    assert Vectorizer(fitted, redaction).transform(decoded([unknown])).category_ids[0].tolist()[:2] == [0, ids[0, 1]]
    for late, early in zip(plain.concealed(redaction).categorical, fitted.categorical, strict=True):
        assert set(late.values) == set(early.values)


def test_what_is_redacted_in_an_array_of_objects_is_masked_in_records() -> None:
    redaction = Redaction(["cards[].number"])

    assert redaction.record({"cards": [{"number": 4711, "kind": "debit"}]}) == {
        "cards": [{"number": "[redacted]", "kind": "debit"}]
    }
    assert redaction.covers("cards[].number")
    assert redaction.touches("cards")
    assert not redaction.touches("cards[].kind")


@pytest.mark.parametrize(
    "value",
    [
        [f"m{at}" for at in range(1_000_000)],
        [{"b": f"m{at}"} for at in range(1_000_000)],
        {f"k{at}": at for at in range(1_000_000)},
        ["x" * 1_000_000] * 3,
        {"x" * 1_000_000: "y" * 1_000_000},
    ],
    ids=["strings", "objects", "map", "long strings", "long key"],
)
def test_a_million_members_are_bounded_and_cost_no_time(value: Any) -> None:
    schema = Schema((SetOfNames("x"), SetOfNames("x[].b"), Numbers("x[]")))
    fitted = fit_vectorizer(schema, [{"x": ["a"]}, {"x": ["a"]}])
    started = time.monotonic()

    Vectorizer(fitted).transform(decoded([{"x": value}]))
    learned = fit_vectorizer(schema, [{"x": value}])
    proposal = infer_schema([{"x": value if type(value) is list else ["a"], "n": at % 3} for at in range(3)])

    assert time.monotonic() - started < 30
    for column in learned.categorical[:-1]:
        assert len(column.values) <= MAX_MEMBERS
        assert max(map(len, column.values), default=0) <= 2 * MAX_MEMBER + 1
    if len(value) == 1_000_000 and type(value) is list and type(value[0]) is str:
        assert "of up to 1,000,000, of which 1,000 are read" in proposal.comments["x"]


def test_what_is_ignored_in_arrays_and_maps_reaches_no_model() -> None:
    schema = Schema((SetOfNames("items[].fraud"), SetOfNames("labels"), SetOfNames("groups"), Numbers("x[]")))

    left = schema.without(["items", "labels.fraud", "x", "y"])

    assert left.fields == (SetOfNames("labels", leave_out=("fraud",)), SetOfNames("groups"))
    assert left.without(["labels.fraud"]) is left
    rows: list[Row] = [{"n": at % 3, "items": [{"fraud": at % 2, "ok": "ab"[at % 2]}]} for at in range(40)]
    assert [field.kind for field in infer_schema(rows, ["items"]).schema.fields] == ["numeric", "ignore", "ignore"]
    assert [field.kind for field in infer_schema(rows, ["items[].fraud"]).schema.fields] == ["numeric", "ignore", "set"]


def test_anomalies_are_planted_in_sets_and_numbers_also_within_arrays() -> None:
    rows: list[Row] = [
        {"g": ["a", "b"[: at % 2]], "l": {"k": "v"}, "i": [{"p": 1.5 + at, "c": "x"}], "n": at % 5} for at in range(60)
    ]
    schema = Schema((SetOfNames("g"), SetOfNames("l"), Numbers("i[].p"), SetOfNames("i[].c"), Numeric("n")))

    for kind in anomalies():
        changed, truth = inject(rows, schema, share=0.5, seed=1, kinds=[kind])
        assert truth
        assert read_columns(schema, changed)[1] == {}
        for planted in truth:
            for name in planted.fields:
                before, after = value_of(rows[planted.index], name), value_of(changed[planted.index], name)
                assert before != after
                assert kind != "missing_burst" or after is None
