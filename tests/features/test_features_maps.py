import random
import time
from typing import Any

import pytest

from tests.features.common import decoded
from worker.features.infer import infer_schema
from worker.features.maps import open_maps
from worker.features.schema import parse_schema
from worker.features.vectorize import Vectorizer, fit_vectorizer
from worker.formats.base import Row
from worker.redaction import Redaction

N = 400


def rows_with(name: str, values: list[Any]) -> list[Row]:
    return [{"n": at % 7, name: value} for at, value in enumerate(values)]


def sparse(rng: random.Random, keys: int, each: int) -> dict[str, Any]:
    return {f"key.{at}": rng.choice(["on", "off"]) for at in rng.sample(range(keys), each)}


DRAW = random.Random(3)
FIXED = [{f"f{at}": DRAW.random() for at in range(30)} for _ in range(N)]
WITH_RARE = [one | ({f"rare{at % 10}": 1} if at % 20 == 0 else {}) for at, one in enumerate(FIXED)]
BY_EVENT = [{f"a{at % 4}.{field}": at for field in range(8)} for at in range(N)]
NESTED = [{f"k{at % 80}": {"a": 1}} for at in range(N)]


@pytest.mark.parametrize(
    ("values", "is_open"),
    [
        ([sparse(DRAW, 520, 6) for _ in range(N)], True),
        ([sparse(DRAW, 60, 2) for _ in range(N)], True),
        ([sparse(DRAW, 60, 2) | {"app": "web", "tier": "a"} for _ in range(N)], True),
        ([None if at % 2 else sparse(DRAW, 520, 6) for at in range(N)], True),
        ([{f"id-{at}": 1} for at in range(N)], True),
        (FIXED, False),
        (WITH_RARE, False),
        (BY_EVENT, False),
        (NESTED, False),
        ([{f"k{at}": at} for at in range(12)], False),
        ([{} for at in range(N)], False),
    ],
)
def test_many_keys_of_which_each_object_has_a_part_are_data(values: list[Any], is_open: bool) -> None:
    assert set(open_maps(rows_with("x", values))) == ({"x"} if is_open else set())


def test_an_open_map_is_one_field_and_its_usual_keys_stay_fields() -> None:
    rows = rows_with("labels", [sparse(DRAW, 90, 3) | {"tier": "ab"[at % 2], "cost": DRAW.random()} for at in range(N)])

    proposal = infer_schema(rows)

    assert [(field.name, field.kind) for field in proposal.schema.fields] == [
        ("n", "numeric"),
        ("labels", "set"),
        ("labels.cost", "numeric"),
        ("labels.tier", "categorical"),
    ]
    assert proposal.schema.fields[1].options()["leave_out"] == ["cost", "tier"]
    assert "an object of 90 keys, each in at most" in proposal.comments["labels"]
    assert "its keys are data" in proposal.comments["labels"]
    assert parse_schema(proposal.to_toml()) == proposal.schema
    assert Vectorizer(fit_vectorizer(proposal.schema, rows)).transform(decoded(rows)).rejects == []


def test_open_maps_lie_in_arrays_and_objects_as_well() -> None:
    maps = [sparse(DRAW, 90, 3) for _ in range(N)]
    rows = rows_with("a", [{"b": [{"labels": one}, {"labels": {"z": 1}}], "c": {"labels": one}} for one in maps])

    assert set(open_maps(rows)) == {"a.b[].labels", "a.c.labels"}
    kinds = {field.name: field.kind for field in infer_schema(rows).schema.fields}
    assert kinds == {"n": "numeric", "a.b[].labels": "set", "a.b[].labels.z": "numbers", "a.c.labels": "set"}


def test_a_label_in_an_open_map_is_left_out_of_it() -> None:
    rows = rows_with("tags", [sparse(DRAW, 90, 3) | ({"fraud": 1} if at % 50 == 0 else {}) for at in range(N)])

    schema = infer_schema(rows, ["tags.fraud"]).schema

    assert {field.name: field.kind for field in schema.fields} == {
        "n": "numeric",
        "tags": "set",
        "tags.fraud": "ignore",
    }
    assert next(field for field in schema.fields if field.name == "tags").options()["leave_out"] == ["fraud"]


def test_no_example_shows_what_is_redacted_in_a_map() -> None:
    rows = rows_with("tags", [sparse(DRAW, 90, 3) | {"owner": "secret"} for at in range(N)])
    rows = [row | {"users": [{"name": "secret"}]} for row in rows]

    assert "secret" not in infer_schema(rows, redaction=Redaction(["tags.owner", "users.name"])).to_toml()


def test_a_million_keys_are_one_field_within_seconds() -> None:
    rows = rows_with("x", [{f"k{at}.{n}": n for n in range(5_000)} for at in range(200)])
    started = time.monotonic()

    fields = infer_schema(rows).schema.fields

    assert [field.name for field in fields] == ["n", "x"]
    assert time.monotonic() - started < 60
