"""A seeded stream of normal card payments, in time order, and the small world that they come from.

Everything regular about the traffic is written down here, so that a reader can check what "normal" means:
currency follows country, amount and hour follow category, entry mode and device follow channel and customer.
"""

from collections.abc import Iterator, Mapping
from datetime import UTC, datetime, timedelta
from itertools import accumulate, count
from pathlib import Path
from random import Random
from typing import Any, NamedTuple


class Country(NamedTuple):
    """A home country: its currency, one euro in it, the step of cash amounts, where its people travel to."""

    currency: str
    per_euro: float
    cash_step: int
    abroad: str
    share: float


class Category(NamedTuple):
    """A merchant category.

    euros, spread   median and log-normal sigma of the amount
    weight          share of all payments
    weekend         how much busier it is on Saturday and Sunday
    hours           (peak hour, standard deviation in hours, weight)
    channels        channel -> weight
    abroad          share of its customers that are travelling
    """

    euros: float
    spread: float
    weight: float
    weekend: float
    hours: tuple[tuple[float, float, float], ...]
    channels: Mapping[str, float]
    merchants: tuple[str, ...]
    abroad: float = 0.0


COUNTRIES: Mapping[str, Country] = {
    "DE": Country("EUR", 1.0, 10, "FR", 0.26),
    "FR": Country("EUR", 1.0, 10, "DE", 0.20),
    "GB": Country("GBP", 0.85, 10, "FR", 0.18),
    "PL": Country("PLN", 4.3, 50, "DE", 0.14),
    "SE": Country("SEK", 11.3, 100, "DE", 0.12),
    "CH": Country("CHF", 0.95, 10, "DE", 0.10),
}

POS = {"pos": 1.0}
CATEGORIES: Mapping[str, Category] = {
    "grocery": Category(
        34, 0.45, 0.26, 1.1, ((11, 1.6, 1), (17.8, 1.3, 2)), POS, ("Green Basket", "Korner Market", "Daily Fresh")
    ),
    "cafe": Category(6, 0.30, 0.13, 0.9, ((8, 0.8, 2), (14.8, 1.2, 1)), POS, ("Bean There", "Cafe Luna")),
    "restaurant": Category(
        38, 0.40, 0.11, 1.6, ((12.7, 0.6, 1), (19.7, 1.0, 2)), POS, ("Trattoria Sole", "Noodle Bar", "The Anchor"), 0.20
    ),
    "transit": Category(3.2, 0.25, 0.11, 0.4, ((7.8, 0.8, 1), (17.2, 0.9, 1)), POS, ("City Metro", "RegioRail")),
    "fuel": Category(61, 0.25, 0.07, 1.0, ((7.5, 0.9, 1), (17, 2.0, 2)), POS, ("Nordoil", "Petrola")),
    "pharmacy": Category(17, 0.40, 0.05, 0.6, ((11, 1.5, 1), (16.5, 1.4, 1)), POS, ("Apollo Pharmacy", "MediPoint")),
    "fashion": Category(
        68, 0.40, 0.06, 1.5, ((15.5, 2.0, 1), (20, 1.2, 1)), {"pos": 0.5, "ecom": 0.5}, ("Nordwear", "Atelier 9"), 0.15
    ),
    "electronics": Category(
        290, 0.45, 0.04, 1.2, ((16, 2.0, 1), (20, 1.2, 1)), {"pos": 0.3, "ecom": 0.7}, ("Volt & Co", "Pixelhaus")
    ),
    "travel": Category(
        430, 0.40, 0.03, 1.0, ((11, 1.5, 1), (20, 1.3, 1)), {"ecom": 1.0}, ("SkyHop", "Roomfinder"), 0.30
    ),
    "streaming": Category(11, 0.15, 0.06, 1.0, ((3.5, 0.7, 1),), {"recurring": 1.0}, ("Cinebox", "Tunestream")),
    "cash": Category(85, 0.45, 0.08, 1.1, ((12.5, 1.8, 1), (18, 1.6, 1)), {"atm": 1.0}, ("Stadtbank", "Crownbank")),
}

WEEKDAYS = (0.95, 0.95, 1.0, 1.0, 1.2, 1.2, 0.7)  # how busy each day is, Monday first

Payment = dict[str, Any]

SCHEMA_FILE = Path(__file__).with_name("schema.toml")
"""The schema that fits these payments."""

START = datetime(2026, 1, 5, tzinfo=UTC)  # a Monday
CUSTOMERS, CONTACTLESS_LIMIT_EUROS = 500, 50.0


class Customer(NamedTuple):
    """One card holder. `level` scales every amount; `taste` and `favourite` are per category."""

    id: str
    country: str
    level: float
    activity: float
    phone: str
    pays_by_phone: bool
    shops_on_phone: bool
    taste: Mapping[str, float]
    favourite: Mapping[str, str]


class Traffic:
    """An endless stream of payments; the same seed gives the same bytes.

    Iterating goes on where it stopped: history and live traffic are taken from one object, with the same customers.
    The event clock is simulated: `per_day` payments make an average day, however fast they are taken.
    """

    def __init__(self, seed: int = 0, *, per_day: int = 430) -> None:
        # One generator draws everything in one order: a draw more or less anywhere makes another world of every seed.
        self._rng = rng = Random(f"traffic-{seed}")
        self._per_day = per_day
        countries, shares = list(COUNTRIES), [country.share for country in COUNTRIES.values()]
        self._customers = [
            Customer(
                id=f"c{number:04d}",
                country=rng.choices(countries, shares)[0],
                level=rng.lognormvariate(0.0, 0.12),
                activity=rng.lognormvariate(0.0, 0.6),
                phone=rng.choice(("ios", "android")),
                pays_by_phone=rng.random() < 0.35,
                shops_on_phone=rng.random() < 0.6,
                taste={name: c.weight * rng.lognormvariate(0.0, 0.4) for name, c in CATEGORIES.items()},
                favourite={name: rng.choice(c.merchants) for name, c in CATEGORIES.items()},
            )
            for number in range(CUSTOMERS)
        ]
        self._stream = self._payments()

    def __iter__(self) -> Iterator[Payment]:
        return self._stream

    def _payments(self) -> Iterator[Payment]:
        rng, numbers = self._rng, count(1)
        activity = list(accumulate(customer.activity for customer in self._customers))
        for day in (START + timedelta(days=number) for number in count()):
            busier = {name: c.weekend if day.weekday() >= 5 else 1.0 for name, c in CATEGORIES.items()}
            visits = []
            payments = max(1, round(self._per_day * WEEKDAYS[day.weekday()] * rng.uniform(0.95, 1.05)))
            for customer in rng.choices(self._customers, cum_weights=activity, k=payments):
                weights = list(accumulate(weight * busier[name] for name, weight in customer.taste.items()))
                category = rng.choices(list(CATEGORIES), cum_weights=weights)[0]
                peaks = CATEGORIES[category].hours
                peak, width, _ = rng.choices(peaks, [weight for *_, weight in peaks])[0]
                second = int(rng.gauss(peak, width) % 24 * 3600)
                visits.append((day + timedelta(seconds=second), customer, category))
            for moment, customer, category in sorted(visits, key=lambda visit: visit[0]):
                yield self._payment(f"t{next(numbers):08d}", moment, customer, category)

    def _payment(self, number: str, moment: datetime, customer: Customer, category: str) -> Payment:
        rng, kind, home = self._rng, CATEGORIES[category], customer.country
        channel = rng.choices(tuple(kind.channels), tuple(kind.channels.values()))[0]
        place = COUNTRIES[home].abroad if rng.random() < kind.abroad else home
        euros = kind.euros * customer.level * rng.lognormvariate(0.0, kind.spread)
        entry_mode, device = self._card_use(customer, channel, euros)
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

    def _card_use(self, customer: Customer, channel: str, euros: float) -> tuple[str, str]:
        """Entry mode and device: what the channel and the customer's habits lead to."""
        if channel in ("recurring", "atm"):
            return ("chip_pin", "card") if channel == "atm" else ("card_on_file", "server")
        if channel == "ecom":
            return "3ds", customer.phone if customer.shops_on_phone else "web"
        if customer.pays_by_phone:
            return "contactless", customer.phone
        tap = euros < CONTACTLESS_LIMIT_EUROS and self._rng.random() < 0.85
        return ("contactless" if tap else "chip_pin"), "card"


def local_amount(euros: float, country: str, *, cash: bool = False) -> float:
    """An amount in the country's own currency, rounded as a till or a cash machine there would."""
    place = COUNTRIES[country]
    amount = euros * place.per_euro
    if cash:
        return float(max(place.cash_step, round(amount / place.cash_step) * place.cash_step))
    return max(0.5, round(amount, 2))
