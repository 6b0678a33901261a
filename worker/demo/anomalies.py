"""Anomalies planted into the payments, and the truth about them, which never enters a payload.

Each planted record breaks a rule of `worker.demo.traffic` that its own fields show; a person who knows the rules nods.
"""

from collections.abc import Iterable, Iterator, Mapping
from dataclasses import dataclass
from datetime import datetime, timedelta
from itertools import chain, islice
from random import Random
from typing import Any

from worker.demo.traffic import CATEGORIES, COUNTRIES, Payment, local_amount
from worker.features.inject import scale_number, swap_fields, with_value, without_fields

KINDS = (
    "rare_combination",
    "amount_out_of_pattern",
    "unseen_category",
    "odd_hour_burst",
    "field_swap",
    "scaled_number",
    "missing_burst",
)
BURST_LENGTH = 4
SMALL_TICKET = ("cafe", "transit", "streaming", "pharmacy")
UNSEEN: Mapping[str, tuple[tuple[str, ...], tuple[str, ...]]] = {
    "merchant.category": (("pawn_shop", "lottery"), ("gift_cards", "crypto_exchange", "betting", "money_transfer")),
    "merchant.country": (("VU", "BZ"), ("KY", "PA", "SC", "VG")),
    "device": (("kiosk", "imprinter"), ("emulator", "rooted_android", "headless_browser")),
    "currency": (("XAF", "BSD"), ("XMR", "USDT", "BTC")),
}
"""Values outside of the world, per field: those of the history, and those that only live traffic has."""


@dataclass(frozen=True, slots=True)
class Planted:
    """The truth about one planted payment: its id, the kind of anomaly, the fields that show it."""

    id: str
    kind: str
    fields: tuple[str, ...]


Change = tuple[Payment, tuple[str, ...]]
Marked = tuple[Payment, Planted | None]


class Planter:
    """Plants anomalies into a stream of payments in time order.

    spacing: normal payments per anomaly (a burst counts as one). Kinds come in turn, so that even a short stretch
    of traffic has them all. live: take the unseen values that no history has.
    """

    def __init__(self, *, seed: int = 0, spacing: int = 300, live: bool = True) -> None:
        self._rng = Random(f"anomalies-{seed}-{live}")
        self._spacing = spacing
        self._live = live
        self._bursts = 0
        self._last: Payment | None = None
        self._burst_end = ""

    def plant(self, payments: Iterable[Payment]) -> Iterator[Marked]:
        """All payments, some of them changed and a few added, each with the truth about it (None = normal)."""
        source, due, turn = self._in_order(payments), self._gap() // 4, 0
        for payment in source:
            due -= 1
            kind = KINDS[turn % len(KINDS)]
            if due > 0 or (kind == "odd_hour_burst" and not _is_night(payment)):
                yield payment, None
            elif kind == "odd_hour_burst":
                yield payment, None
                yield from self._odd_hour_burst(payment)
                due, turn = self._gap(), turn + 1
            elif kind == "missing_burst":
                yield from self._missing_burst(payment, source)
                due, turn = self._gap(), turn + 1
            elif (change := self.change(payment, kind)) is not None:
                yield _marked(change, kind)
                due, turn = self._gap(), turn + 1
            else:
                yield payment, None
            self._last = payment

    def change(self, payment: Payment, kind: str) -> Change | None:
        """An anomalous copy of one payment, or None where the kind doesn't fit it. Not for bursts."""
        if kind == "rare_combination":
            return self._rare_combination(payment)
        if kind == "amount_out_of_pattern":
            return self._amount_out_of_pattern(payment)
        if kind == "unseen_category":
            name = self._rng.choice(tuple(UNSEEN))
            return with_value(payment, name, self._rng.choice(UNSEEN[name][self._live])), (name,)
        if kind == "field_swap":
            return self._field_swap(payment)
        if payment["amount"] < 5:
            return None
        return scale_number(payment, "amount", 100), ("amount",)

    def _in_order(self, payments: Iterable[Payment]) -> Iterator[Payment]:
        """The payments, none of them earlier than the burst that was put before it."""
        for payment in payments:
            yield payment if payment["time"] >= self._burst_end else {**payment, "time": self._burst_end}

    def _gap(self) -> int:
        return max(1, round(self._spacing * self._rng.uniform(0.7, 1.3)))

    def _rare_combination(self, payment: Payment) -> Change:
        """Values that are common, each for itself, and never come together."""
        rng, channel = self._rng, payment["channel"]
        if rng.random() < 0.4:
            others = sorted({c.currency for c in COUNTRIES.values()} - {payment["currency"]})
            return with_value(payment, "currency", rng.choice(others)), ("currency", "merchant.country")
        elsewhere = {"pos": "recurring", "atm": "ecom", "ecom": "atm", "recurring": "pos"}[channel]
        return with_value(payment, "channel", elsewhere), ("channel", "entry_mode")

    def _amount_out_of_pattern(self, payment: Payment) -> Change | None:
        """The price of a flight for a coffee: an normal amount, but not in this category."""
        if payment["merchant"]["category"] not in SMALL_TICKET:
            return None
        euros = CATEGORIES["travel"].euros * self._rng.lognormvariate(0.4, 0.3)
        return with_value(payment, "amount", local_amount(euros, payment["merchant"]["country"])), ("amount",)

    def _field_swap(self, payment: Payment) -> Change | None:
        """Two fields of the payment before: two records got mixed up on the way."""
        if self._last is None:
            return None
        pairs = (("channel", "entry_mode"), ("currency", "customer.country"), ("merchant.category", "channel"))
        for fields in self._rng.sample(pairs, len(pairs)):
            if all(_at(payment, name) != _at(self._last, name) for name in fields):
                return swap_fields(payment, self._last, fields), fields
        return None

    def _missing_burst(self, first: Payment, source: Iterator[Payment]) -> Iterator[Marked]:
        """A gateway that loses the same fields for a few payments in a row."""
        bursts = (
            ("device", "entry_mode"),
            ("merchant.country", "currency"),
            ("channel", "device", "merchant.category"),
        )
        fields = bursts[self._bursts % len(bursts)]
        self._bursts += 1
        for payment in chain([first], islice(source, BURST_LENGTH - 1)):
            yield _marked((without_fields(payment, fields), fields), "missing_burst")

    def _odd_hour_burst(self, before: Payment) -> Iterator[Marked]:
        """One card, at four in the morning, buys one thing after the other in shops that are closed then."""
        rng = self._rng
        moment = datetime.fromisoformat(before["time"])
        country = before["customer"]["country"]
        for number in range(BURST_LENGTH):
            category = rng.choice(("electronics", "fashion", "pharmacy"))
            kind = CATEGORIES[category]
            changed = {
                **before,
                "id": f"{before['id']}-{number}",
                "time": (moment + timedelta(seconds=1 + number)).strftime("%Y-%m-%dT%H:%M:%SZ"),
                "merchant": {"name": rng.choice(kind.merchants), "category": category, "country": country},
                "amount": local_amount(kind.euros * rng.lognormvariate(0.5, 0.3), country),
                "currency": COUNTRIES[country].currency,
                "channel": "pos",
                "entry_mode": "chip_pin",
                "device": "card",
            }
            self._burst_end = changed["time"]
            yield _marked((changed, ("time", "merchant.category")), "odd_hour_burst")


def _is_night(payment: Payment) -> bool:
    return 3 <= int(payment["time"][11:13]) < 5


def _marked(change: Change, kind: str) -> Marked:
    payment, fields = change
    return payment, Planted(payment["id"], kind, fields)


def _at(payment: Payment, name: str) -> Any:
    value: Any = payment
    for key in name.split("."):
        value = value[key]
    return value
