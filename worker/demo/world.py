"""The small world of the demo's card payments: countries, merchant categories, customers with habits.

Everything regular about the traffic is written down here, so that a reader can check what "normal" means:
currency follows country, amount and hour follow category, entry mode and device follow channel and customer.
"""

from collections.abc import Mapping
from dataclasses import dataclass
from random import Random


@dataclass(frozen=True, slots=True)
class Country:
    """A home country: its currency, one euro in it, the step of cash amounts, where its people travel to."""

    currency: str
    per_euro: float
    cash_step: int
    abroad: str
    share: float


@dataclass(frozen=True, slots=True)
class Category:
    """A merchant category.

    euros and spread: median and log-normal sigma of the amount; weight: share of all payments; weekend: how much busier
    on Saturday and Sunday; hours: (peak hour, standard deviation in hours, weight); channels: channel -> weight;
    abroad: share of its customers that are travelling.
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

WEEKDAYS = (0.95, 0.95, 1.0, 1.0, 1.2, 1.2, 0.7)
"""How busy each day is, Monday first."""


@dataclass(frozen=True, slots=True)
class Customer:
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


def make_customers(rng: Random, count: int) -> list[Customer]:
    """`count` customers, the same for the same generator state."""
    countries = list(COUNTRIES)
    shares = [c.share for c in COUNTRIES.values()]
    return [
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
        for number in range(count)
    ]
