"""Addresses: what is one, what the model sees of it, and what is kept of a redacted one."""

from random import Random
from typing import Any

import orjson
import pytest

from tests.features.common import decoded, encode, one_field, rows_of
from worker.errors import ErrorCode, SchemaError
from worker.features.fitted import Fitted
from worker.features.infer import infer_schema
from worker.features.inject import inject
from worker.features.kinds import Address
from worker.features.learned import MISSING_ID, UNKNOWN_ID
from worker.features.schema import Schema, parse_schema
from worker.features.vectorize import Vectorizer, conceal, fit_vectorizer
from worker.redaction import Redaction, revive

DRAW = Random(0)
N = 200
INSIDE = [f"10.{DRAW.randrange(256)}.{DRAW.randrange(256)}.{DRAW.randrange(256)}" for _ in range(N)]


def kind_of(values: list[Any]) -> str:
    rows = [row | {"y": n % 7} for n, row in enumerate(rows_of(values))]
    return next(field.kind for field in infer_schema(rows).schema.fields if field.name == "x")


@pytest.mark.parametrize(
    ("kind", "values"),
    [
        ("address", INSIDE),
        ("address", [f"{address}:443" for address in INSIDE]),
        ("address", ["-", *INSIDE]),
        ("address", DRAW.choices(INSIDE[:5], k=N)),
        ("address", [f"2001:db8::{n:x}" for n in range(1, N)]),
        ("address", [f"[fe80::{n:x}%eth0]:22" for n in range(1, N)]),
        ("address", [f"10.{n}.0.0/16" for n in range(N)]),
        ("address", [*INSIDE, "localhost"]),  # one of two hundred
        ("id", [f"10.{n}.0" for n in range(N)]),
        ("id", [f"10.0.0.{n + 200}" for n in range(N)]),  # most are above 255
        ("id", [f"host-{n}.example" for n in range(N)]),
        ("id", [f"{n:02x}:00:5e:00:53:af" for n in range(N)]),  # of a network card
        ("categorical", DRAW.choices(["1.2.3", "1.2.4"], k=N)),
    ],
)
def test_the_kind_of_addresses_and_of_what_resembles_them(kind: str, values: list[Any]) -> None:
    assert kind_of(values) == kind


@pytest.mark.parametrize(
    ("text", "address", "network", "numbers"),
    [
        ("10.7.1.2", "10.7.1.2", "10.7.0.0/16", [0, 0, 0, 0]),
        ("172.31.255.1:80", "172.31.255.1", "172.31.0.0/16", [0, 0, 0, 0]),
        ("172.32.0.1", "172.32.0.1", "172.32.0.0/16", [0, 1, 0, 0]),
        ("100.64.0.1", "100.64.0.1", "100.64.0.0/16", [0, 0, 0, 0]),
        (" 8.8.8.8 ", "8.8.8.8", "8.8.0.0/16", [0, 1, 0, 0]),
        ("127.0.0.1", "127.0.0.1", "127.0.0.0/16", [0, 0, 1, 0]),
        ("169.254.3.4", "169.254.3.4", "169.254.0.0/16", [0, 0, 1, 0]),
        ("239.1.1.1", "239.1.1.1", "239.1.0.0/16", [0, 0, 0, 1]),
        ("255.255.255.255", "255.255.255.255", "255.255.0.0/16", [0, 0, 0, 1]),
        ("::1", "::1", "::/32", [1, 0, 1, 0]),
        ("FE80::1%eth0", "fe80::1", "fe80::/32", [1, 0, 1, 0]),
        ("fd00::5", "fd00::5", "fd00::/32", [1, 0, 0, 0]),
        ("[2001:db8:0:0::5]:443", "2001:db8::5", "2001:db8::/32", [1, 1, 0, 0]),
        ("2001:db8:9::/48", "2001:db8:9::", "2001:db8::/32", [1, 1, 0, 0]),
        ("ff02::fb", "ff02::fb", "ff02::/32", [1, 0, 0, 1]),
        ("::ffff:10.7.1.2", "10.7.1.2", "10.7.0.0/16", [0, 0, 0, 0]),
    ],
)
def test_an_address_is_read_with_its_network_and_what_it_is(
    text: str, address: str, network: str, numbers: list[int]
) -> None:
    field = Address("x")

    column, failures = field.read([text])

    assert not failures
    assert field.categories(column) == [(address, network)]
    assert [part.tolist() for part in field.numbers(column)] == [[number] for number in numbers]


@pytest.mark.parametrize(
    "value",
    [
        *(
            "localhost",
            "10.0.0",
            "10.0.0.256",
            "10.0.0.1.2",
            "1:2",
            ":",
            "::1::2",
            "010.0.0.1x",
            "10.0.0.1:",
            "a" * 100,
        ),
        *(7, ["10.0.0.1", "10.0.0.2"], "redacted:00112233445566778899aabbccddeeff:4", "1.2.3.\u0664"),
    ],
)
def test_what_is_no_address_costs_its_own_record(value: Any) -> None:
    schema, fitted = one_field("address", INSIDE)

    rejects = encode(schema, fitted, ["10.0.0.1", value, "-"]).rejects

    assert [(reject.message.offset, reject.error_code) for reject in rejects] == [(1, ErrorCode.WRONG_TYPE)]
    assert rejects[0].detail.startswith("x: expected an IP address, got a")


def test_hosts_that_come_again_are_known_by_themselves_and_a_new_one_beside_them_is_new() -> None:
    schema, fitted = one_field("address", ["10.0.0.1", "10.0.0.2"] * 50)

    ids = encode(schema, fitted, ["10.0.0.1", "10.0.0.2", "10.0.0.3", None]).category_ids[:, 0].tolist()

    assert fitted.categorical[0].values == ("10.0.0.1", "10.0.0.2")
    assert ids == [2, 3, UNKNOWN_ID, MISSING_ID]


def test_addresses_that_hardly_repeat_are_known_by_their_networks_and_a_new_network_is_new() -> None:
    seen = [f"10.{n % 4}.{n // 7}.{n % 250}" for n in range(1000)]
    schema, fitted = one_field("address", seen)

    ids = encode(schema, fitted, ["10.3.99.99", "10.4.0.1", "8.8.8.8"]).category_ids[:, 0].tolist()

    assert set(fitted.categorical[0].values) == {f"10.{n}.0.0/16" for n in range(4)}
    assert ids[0] > MISSING_ID
    assert ids[1:] == [UNKNOWN_ID, UNKNOWN_ID]


def test_where_networks_hardly_repeat_a_new_one_is_a_rare_one() -> None:
    seen = [f"{n % 150 + 20}.{n * 7 % 256}.1.1" for n in range(500)] + ["10.0.0.1"] * 50
    schema, fitted = one_field("address", seen)

    ids = encode(schema, fitted, ["10.0.0.1", "9.9.9.9"]).category_ids[:, 0].tolist()

    assert fitted.categorical[0].value(ids[0]) == "10.0.0.1"
    assert fitted.categorical[0].value(ids[1]) == "a rare value"


def test_a_public_address_stands_out_by_its_numbers_among_private_ones() -> None:
    schema, fitted = one_field("address", INSIDE)

    numeric = encode(schema, fitted, [INSIDE[0], "8.8.8.8"]).numeric

    assert (abs(numeric[1] - numeric[0]) > 3).tolist() == [False, True, False, False]


def test_what_was_fitted_comes_back_from_its_own_data_and_explains() -> None:
    schema, fitted = one_field("address", ["10.0.0.1"] * 9 + ["10.0.0.2"] * 5)

    again = Fitted.from_json(orjson.loads(orjson.dumps(fitted.to_json())), schema)

    assert again == fitted
    assert again.expected("x", [0.0] * 4, 2) == "10.0.0.1"
    assert again.describe("x") == "10.0.0.1, 10.0.0.2"


def test_of_a_redacted_address_tokens_are_kept_and_they_mean_what_it_meant() -> None:
    schema, hidden = Schema((Address("x"),)), Redaction(["x"], secret="s")
    rows = rows_of([*INSIDE, "8.8.8.8", "-"])
    fitted = fit_vectorizer(schema, rows, redaction=hidden)

    kept = conceal(fitted, hidden, rows)
    restored = [revive(orjson.loads(orjson.dumps(row)), ["x"]) for row in kept]

    assert not any(address in str(kept) for address in INSIDE)
    assert fit_vectorizer(schema, restored, redaction=hidden).categorical == fitted.categorical
    plain, masked = (Vectorizer(fitted, hidden).transform(decoded(batch)) for batch in (rows, restored))
    assert plain.numeric.tobytes() == masked.numeric.tobytes()
    assert plain.category_ids.tobytes() == masked.category_ids.tobytes()
    assert conceal(fitted, hidden, restored) == kept


def test_an_unseen_address_is_planted() -> None:
    changed, truth = inject(rows_of(INSIDE), Schema((Address("x"),)), share=0.01, kinds=["unseen_category"])

    assert all(changed[planted.index]["x"] not in INSIDE for planted in truth)
    assert not Address("x").read([changed[planted.index]["x"] for planted in truth])[1]


def test_drift_compares_networks() -> None:
    other = [address.replace("10.", "172.", 1) for address in INSIDE]

    assert Address("x", prefix_v4=8).drift(INSIDE, other)[0] == 1
    assert Address("x", prefix_v4=8).drift(INSIDE, INSIDE[::-1])[0] == 0


@pytest.mark.parametrize(
    ("option", "network"),
    [("prefix_v4 = 24", "10.7.1.0/24"), ("prefix_v4 = 8", "10.0.0.0/8"), ("prefix_v4 = 32", "10.7.1.2/32")],
)
def test_the_bits_of_a_network_are_an_option(option: str, network: str) -> None:
    (field,) = parse_schema(f"[fields.x]\nkind = 'address'\n{option}").fields

    assert field.categories(field.read(["10.7.1.2"])[0]) == [("10.7.1.2", network)]


@pytest.mark.parametrize(
    "option", ["prefix_v4 = 0", "prefix_v4 = 33", "prefix_v6 = 129", "prefix_v4 = true", "max_values = 0"]
)
def test_bits_that_no_address_has_are_refused(option: str) -> None:
    with pytest.raises(SchemaError, match="must be a whole number"):
        parse_schema(f"[fields.x]\nkind = 'address'\n{option}")
