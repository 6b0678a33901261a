"""A seeded stream of normal card payments, in time order, with a daily and a weekly rhythm."""

from collections.abc import Iterator
from datetime import UTC, datetime, timedelta
from itertools import accumulate
from pathlib import Path
from random import Random
from typing import Any

from worker.demo.world import CATEGORIES, COUNTRIES, WEEKDAYS, Customer, make_customers

Payment = dict[str, Any]

SCHEMA_FILE = Path(__file__).with_name("schema.toml")
"""The schema that fits these payments."""

START = datetime(2026, 1, 5, tzinfo=UTC)
"""The Monday on which the traffic begins."""

CONTACTLESS_LIMIT_EUROS = 50.0


class Traffic:
    """An endless stream of payments; the same seed gives the same bytes.

    Iterating goes on where it stopped: history and live traffic are taken from one object, with the same customers.
    The event clock is simulated: `per_day` payments make an average day, however fast they are taken.
    """

    def __init__(self, seed: int = 0, *, start: datetime = START, per_day: int = 430, customers: int = 500) -> None:
        self._rng = Random(f"traffic-{seed}")
        self._per_day = per_day
        self._start = start
        self._customers = make_customers(self._rng, customers)
        self._activity = list(accumulate(customer.activity for customer in self._customers))
        self._weights = {
            customer.id: tuple(list(accumulate(_tastes(customer, weekend))) for weekend in (False, True))
            for customer in self._customers
        }
        self._stream = self._payments()

    def __iter__(self) -> Iterator[Payment]:
        return self._stream

    def take(self, count: int) -> list[Payment]:
        """The next `count` payments."""
        return [next(self._stream) for _ in range(count)]

    def _payments(self) -> Iterator[Payment]:
        number = 0
        day = self._start
        while True:
            for moment, customer, category in self._day(day):
                number += 1
                yield self._payment(f"t{number:08d}", moment, customer, category)
            day += timedelta(days=1)

    def _day(self, day: datetime) -> list[tuple[datetime, Customer, str]]:
        rng = self._rng
        weekend = day.weekday() >= 5
        count = max(1, round(self._per_day * WEEKDAYS[day.weekday()] * rng.uniform(0.95, 1.05)))
        visits = []
        for customer in rng.choices(self._customers, cum_weights=self._activity, k=count):
            category = rng.choices(CATEGORY_NAMES, cum_weights=self._weights[customer.id][weekend])[0]
            second = int(_hour(rng, category) * 3600)
            visits.append((day + timedelta(seconds=second), customer, category))
        return sorted(visits, key=lambda visit: visit[0])

    def _payment(self, number: str, moment: datetime, customer: Customer, category: str) -> Payment:
        rng = self._rng
        kind = CATEGORIES[category]
        channel = rng.choices(tuple(kind.channels), tuple(kind.channels.values()))[0]
        home = customer.country
        place = COUNTRIES[home].abroad if rng.random() < kind.abroad else home
        euros = kind.euros * customer.level * rng.lognormvariate(0.0, kind.spread)
        entry_mode, device = _card_use(rng, customer, channel, euros)
        merchant = customer.favourite[category] if rng.random() < 0.6 else rng.choice(kind.merchants)
        return {
            "id": number,
            "time": moment.strftime("%Y-%m-%dT%H:%M:%SZ"),
            "customer": {"id": customer.id, "country": home},
            "merchant": {"name": merchant, "category": category, "country": place},
            "amount": local_amount(euros, place, cash=category == "cash"),
            "currency": COUNTRIES[place].currency,
            "channel": channel,
            "entry_mode": entry_mode,
            "device": device,
            "status": "declined" if rng.random() < 0.03 else "approved",
        }


CATEGORY_NAMES = tuple(CATEGORIES)


def local_amount(euros: float, country: str, *, cash: bool = False) -> float:
    """An amount in the country's own currency, rounded as a till or a cash machine there would."""
    place = COUNTRIES[country]
    amount = euros * place.per_euro
    if cash:
        return float(max(place.cash_step, round(amount / place.cash_step) * place.cash_step))
    return max(0.5, round(amount, 2))


def _tastes(customer: Customer, weekend: bool) -> Iterator[float]:
    for name, weight in customer.taste.items():
        yield weight * (CATEGORIES[name].weekend if weekend else 1.0)


def _hour(rng: Random, category: str) -> float:
    """Hour of the day in [0, 24), drawn around one of the category's peaks."""
    peaks = CATEGORIES[category].hours
    peak, width, _ = rng.choices(peaks, [weight for *_, weight in peaks])[0]
    return rng.gauss(peak, width) % 24


def _card_use(rng: Random, customer: Customer, channel: str, euros: float) -> tuple[str, str]:
    """Entry mode and device: what the channel and the customer's habits lead to."""
    if channel == "recurring":
        return "card_on_file", "server"
    if channel == "atm":
        return "chip_pin", "card"
    if channel == "ecom":
        return "3ds", customer.phone if customer.shops_on_phone else "web"
    if customer.pays_by_phone:
        return "contactless", customer.phone
    tap = euros < CONTACTLESS_LIMIT_EUROS and rng.random() < 0.85
    return ("contactless" if tap else "chip_pin"), "card"
