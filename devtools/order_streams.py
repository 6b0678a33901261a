"""Orders with planted anomalies that are subtle: broken relations between numbers, odd hours, rare pairs."""

import math
from collections.abc import Callable, Iterator
from datetime import UTC, datetime, timedelta
from random import Random

from worker.formats.base import Row

FIT_ON, SCORED, PLANTED = 8000, 8000, 0.03
START = datetime(2026, 3, 2, tzinfo=UTC)
NUMBERS = {"amount": 2, "unit_price": 2, "quantity": 0, "discount": 2, "weight": 3, "voucher": 2}
"""Digits behind the point."""
FLAGS = ("is_gift", "is_express", "is_new")
CATEGORIES = {"book": (12, 0.4), "food": (6, 1.2), "phone": (320, 0.5), "shoe": (70, 1.0), "sofa": (600, 30.0)}
"""Usual price and weight of a piece."""
COUNTRIES = {
    "DE": (("invoice", "card"), ("north", "south")),
    "FR": (("card", "wallet"), ("west", "south")),
    "NL": (("debit", "invoice"), ("north", "west")),
    "PL": (("cash", "wallet"), ("east",)),
}
"""How they pay, and who brings it."""


def orders(seed: int) -> Iterator[tuple[Row, bool]]:
    """Orders in the order of their time, and which of them are planted."""
    draw = Random(seed)
    at = START
    for number in range(FIT_ON + SCORED):
        at += timedelta(seconds=draw.expovariate(1 / 90))
        while draw.random() > max(0.0, math.sin((at.hour - 6) / 17 * math.pi) if at.hour >= 6 else 0.0) + 0.01:
            at += timedelta(seconds=draw.expovariate(1 / 90))
        row = order(at, draw)
        is_planted = number >= FIT_ON and draw.random() < PLANTED
        if is_planted:
            PLANTS[draw.randrange(len(PLANTS))](row, draw)
        yield row, is_planted


def order(at: datetime, draw: Random) -> Row:
    """One normal order, numbers as JSON numbers, the time in ISO 8601, UTC, to the second."""
    category = draw.choices(list(CATEGORIES), (5, 8, 2, 4, 1))[0]
    country = draw.choices(list(COUNTRIES), (6, 3, 2, 1))[0]
    usual, heavy = CATEGORIES[category]
    price, quantity = round(usual * draw.lognormvariate(0, 0.2), 2), min(40, int(draw.expovariate(0.4)) + 1)
    discount = draw.choices((0, 0.05, 0.1, 0.25), (6, 2, 2, 1))[0]
    payments, carriers = COUNTRIES[country]
    return {
        "at": at.strftime("%Y-%m-%dT%H:%M:%SZ"),
        "order_id": f"o-{draw.getrandbits(48):012x}",
        "category": category,
        "country": country,
        "payment": draw.choice(payments),
        "carrier": draw.choice(carriers),
        "amount": round(price * quantity * (1 - discount), 2),
        "unit_price": price,
        "quantity": quantity,
        "discount": discount,
        "weight": round(heavy * quantity * draw.lognormvariate(0, 0.1), 3),
        "voucher": None if draw.random() < 0.7 else round(draw.lognormvariate(2, 0.5), 2),
        "is_gift": category in ("book", "shoe") and draw.random() < 0.3,
        "is_express": draw.random() < 0.2,
        "is_new": draw.random() < 0.4,
    }


def off(name: str, low: float, high: float) -> Callable[[Row, Random], None]:
    """Plants a number that is so many times too high, or too low."""

    def plant(row: Row, draw: Random) -> None:
        factor = draw.uniform(low, high)
        row[name] = round(row[name] * (factor if draw.random() < 0.5 else 1 / factor) + 0.01, NUMBERS[name])

    return plant


def odd_hour(row: Row, draw: Random) -> None:
    row["at"] = f"{row['at'][:11]}0{draw.randint(1, 4)}{row['at'][13:]}"


def rare_pair(row: Row, draw: Random) -> None:
    side, name = draw.choice(((0, "payment"), (1, "carrier")))
    known = COUNTRIES[row["country"]][side]
    row[name] = draw.choice([value for pair in COUNTRIES.values() for value in pair[side] if value not in known])


def odd_gift(row: Row, draw: Random) -> None:
    row["category"], row["is_gift"] = draw.choice(("food", "phone", "sofa")), True


PLANTS = (off("amount", 2, 3), off("weight", 2, 3), off("unit_price", 2, 3), odd_hour, rare_pair, odd_gift)
