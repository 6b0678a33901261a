"""The demo's payments are regular, and what is planted in them breaks a rule that their own fields show."""

from collections import Counter, defaultdict
from datetime import datetime
from itertools import islice

import orjson
import pytest

from worker.demo.anomalies import KINDS, UNSEEN, Planted, Planter
from worker.demo.traffic import CATEGORIES, COUNTRIES, SCHEMA_FILE, Payment, Traffic
from worker.features.schema import load_schema, read_columns


@pytest.fixture(scope="module")
def payments() -> list[Payment]:
    return list(islice(Traffic(seed=3), 8000))


@pytest.fixture(scope="module")
def marked() -> list[tuple[Payment, Planted | None]]:
    return list(islice(Planter(seed=3, spacing=60).plant(Traffic(seed=3)), 8000))


def hour(payment: Payment) -> int:
    return datetime.fromisoformat(payment["time"]).hour


CARD_USE = {
    "pos": {("contactless", "card"), ("contactless", "ios"), ("contactless", "android"), ("chip_pin", "card")},
    "ecom": {("3ds", "ios"), ("3ds", "android"), ("3ds", "web")},
    "atm": {("chip_pin", "card")},
    "recurring": {("card_on_file", "server")},
}


def follows_the_rules(payment: Payment) -> bool:
    """Currency follows country, channel and merchant follow category, entry mode and device follow channel."""
    country = COUNTRIES.get(str(_value(payment, "merchant.country")))
    category = CATEGORIES.get(str(_value(payment, "merchant.category")))
    channel = str(_value(payment, "channel"))
    if country is None or category is None:
        return False
    return (
        _value(payment, "currency") == country.currency
        and channel in category.channels
        and _value(payment, "merchant.name") in category.merchants
        and (_value(payment, "entry_mode"), _value(payment, "device")) in CARD_USE[channel]
    )


def test_the_same_seed_gives_the_same_bytes() -> None:
    one, other = (list(islice(Planter(seed=5).plant(Traffic(seed=5)), 2000)) for _ in range(2))

    assert orjson.dumps([payment for payment, _ in one]) == orjson.dumps([payment for payment, _ in other])
    assert [truth for _, truth in one] == [truth for _, truth in other]
    assert list(islice(Traffic(seed=6), 100)) != list(islice(Traffic(seed=5), 100))


def test_payments_are_in_time_order_and_have_their_own_ids(marked: list[tuple[Payment, Planted | None]]) -> None:
    times = [payment["time"] for payment, _ in marked]

    assert times == sorted(times)
    assert len({payment["id"] for payment, _ in marked}) == len(marked)


def test_every_payment_fits_the_shipped_schema(marked: list[tuple[Payment, Planted | None]]) -> None:
    schema = load_schema(SCHEMA_FILE)

    _, failures = read_columns(schema, [payment for payment, _ in marked])

    assert failures == {}
    assert len(schema.encoded) == 11
    assert all(100 < len(orjson.dumps(payment)) < 350 for payment, _ in marked)


def test_every_ordinary_payment_follows_the_rules(marked: list[tuple[Payment, Planted | None]]) -> None:
    assert [payment for payment, truth in marked if truth is None and not follows_the_rules(payment)] == []


def test_amount_follows_category(payments: list[Payment]) -> None:
    euros = defaultdict(list)
    for payment in payments:
        rate = COUNTRIES[payment["merchant"]["country"]].per_euro
        euros[payment["merchant"]["category"]].append(payment["amount"] / rate)

    for category, amounts in euros.items():
        median = sorted(amounts)[len(amounts) // 2]
        assert CATEGORIES[category].euros / 1.35 < median < CATEGORIES[category].euros * 1.35, category


def test_day_and_week_have_a_rhythm(payments: list[Payment]) -> None:
    days = Counter(datetime.fromisoformat(payment["time"]).date() for payment in payments)
    by_weekday = defaultdict(list)
    for day, count in list(days.items())[:-1]:
        by_weekday[day.weekday()].append(count)
    average = {weekday: sum(counts) / len(counts) for weekday, counts in by_weekday.items()}
    night = [payment for payment in payments if 1 <= hour(payment) < 4]

    assert average[4] > 1.1 * average[0] > 1.1 * average[6]
    assert len(night) < 0.12 * len(payments)
    assert {payment["merchant"]["category"] for payment in night} == {"streaming"}


def test_all_kinds_come_in_turn_and_stay_a_small_share(marked: list[tuple[Payment, Planted | None]]) -> None:
    kinds = Counter(truth.kind for _, truth in marked if truth)

    assert set(kinds) == set(KINDS)
    assert sum(kinds.values()) < 0.05 * len(marked)


def test_the_truth_is_not_in_the_payload(marked: list[tuple[Payment, Planted | None]]) -> None:
    normal = {key for payment, truth in marked if truth is None for key in payment}
    planted = {key for payment, truth in marked if truth is not None for key in payment}

    assert planted <= normal
    assert all(truth.id == payment["id"] for payment, truth in marked if truth)


def test_each_kind_breaks_a_rule(marked: list[tuple[Payment, Planted | None]]) -> None:
    of_kind = defaultdict(list)
    for payment, truth in marked:
        if truth:
            of_kind[truth.kind].append((payment, truth.fields))

    for kind in ("rare_combination", "field_swap", "unseen_category", "missing_burst"):
        assert [payment for payment, _ in of_kind[kind] if follows_the_rules(payment)] == []
    assert all(_euros(p) > 10 * _usual(p) for p, _ in of_kind["amount_out_of_pattern"])
    assert all(_euros(p) > 15 * _usual(p) for p, _ in of_kind["scaled_number"])
    assert all(_value(p, fields[0]) in UNSEEN[fields[0]][1] for p, fields in of_kind["unseen_category"])
    assert all(_value(p, name) is None for p, fields in of_kind["missing_burst"] for name in fields)
    assert all(3 <= hour(p) < 5 and _value(p, "channel") == "pos" for p, _ in of_kind["odd_hour_burst"])


def test_what_live_traffic_has_not_seen_is_not_in_the_history() -> None:
    history = islice(Planter(seed=0, spacing=30, live=False).plant(Traffic(seed=0)), 8000)

    seen = {(name, _value(payment, name)) for payment, _ in history for name in UNSEEN}

    assert not seen & {(name, value) for name, (_, live) in UNSEEN.items() for value in live}


def _value(payment: Payment, name: str) -> object:
    head, _, rest = name.partition(".")
    return payment.get(head, {}).get(rest) if rest else payment.get(head)


def _euros(payment: Payment) -> float:
    return float(payment["amount"] / COUNTRIES[payment["merchant"]["country"]].per_euro)


def _usual(payment: Payment) -> float:
    return CATEGORIES[payment["merchant"]["category"]].euros
