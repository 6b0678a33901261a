"""Anomalies planted into the payments, and the truth about them, which never enters a payload.

Each planted record breaks a rule of `worker.demo.traffic` that its own fields show; a person who knows the rules nods.
"""

from collections.abc import Iterable, Iterator, Mapping
from dataclasses import dataclass, field
from datetime import datetime, timedelta
from itertools import chain, islice
from random import Random
from typing import NamedTuple

from worker.demo.traffic import CATEGORIES, COUNTRIES, Payment, local_amount
from worker.features.inject import with_values, without_fields
from worker.features.kinds.numeric import scaled
from worker.features.paths import value_of

MIN_RECALL, MAX_FALSE_SHARE = 0.8, 0.01
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
LOST_TOGETHER = (("device", "entry_mode"), ("merchant.country", "currency"), ("channel", "device", "merchant.category"))
SMALL_TICKET = ("cafe", "transit", "streaming", "pharmacy")
UNSEEN: Mapping[str, tuple[tuple[str, ...], tuple[str, ...]]] = {
    "merchant.category": (("pawn_shop", "lottery"), ("gift_cards", "crypto_exchange", "betting", "money_transfer")),
    "merchant.country": (("VU", "BZ"), ("KY", "PA", "SC", "VG")),
    "device": (("kiosk", "imprinter"), ("emulator", "rooted_android", "headless_browser")),
    "currency": (("XAF", "BSD"), ("XMR", "USDT", "BTC")),
}
"""Values outside of the world, per field: those of the history, and those that only live traffic has."""


class Planted(NamedTuple):
    """The truth about one planted payment: its id, the kind of anomaly, the fields that show it."""

    id: str
    kind: str
    fields: tuple[str, ...]


Change = tuple[Payment, tuple[str, ...]]
Marked = tuple[Payment, Planted | None]


class Planter:
    """Plants anomalies into a stream of payments in time order. Kinds come in turn, so that even a short stretch of
    traffic has them all.

    spacing   normal payments for each anomaly; a burst counts as one
    live      take the unseen values that no history has
    """

    def __init__(self, *, seed: int = 0, spacing: int = 300, live: bool = True) -> None:
        self._rng = Random(f"anomalies-{seed}-{live}")
        self._spacing = spacing
        self._live = live
        self._bursts = 0
        self._previous: Payment | None = None
        self._burst_end = ""

    def plant(self, payments: Iterable[Payment]) -> Iterator[Marked]:
        """All payments, some of them changed and a few added, each with the truth about it (None = normal)."""
        # No payment is earlier than the burst that was put before it, for the stream is in time order.
        source = (p if p["time"] >= self._burst_end else {**p, "time": self._burst_end} for p in payments)
        due, turn = self._gap() // 4, 0
        for payment in source:
            due -= 1
            marked = self._planted(payment, KINDS[turn % len(KINDS)], source) if due <= 0 else iter(())
            first = next(marked, None)
            yield (payment, None) if first is None else first
            if first is not None:
                yield from marked
                due, turn = self._gap(), turn + 1
            self._previous = payment

    def _gap(self) -> int:
        return max(1, round(self._spacing * self._rng.uniform(0.7, 1.3)))

    def _planted(self, payment: Payment, kind: str, source: Iterator[Payment]) -> Iterator[Marked]:
        """What stands in this payment's place; nothing where the kind doesn't fit it. Never reads ahead in the source,
        which goes on where a caller stops.
        """
        if kind == "odd_hour_burst":
            if 3 <= int(payment["time"][11:13]) < 5:
                yield payment, None
                yield from self._odd_hour_burst(payment)
        elif kind == "missing_burst":  # a gateway that loses the same fields for a few payments in a row
            fields = LOST_TOGETHER[self._bursts % len(LOST_TOGETHER)]
            self._bursts += 1
            for lossy in chain([payment], islice(source, BURST_LENGTH - 1)):
                yield without_fields(lossy, fields), Planted(lossy["id"], kind, fields)
        elif (change := self._change(payment, kind)) is not None:
            yield change[0], Planted(payment["id"], kind, change[1])

    def _change(self, payment: Payment, kind: str) -> Change | None:
        """An anomalous copy of one payment, or None where the kind doesn't fit it."""
        rng, channel = self._rng, payment["channel"]
        if kind == "rare_combination":  # values that are common, each for itself, and never come together
            if rng.random() < 0.4:
                others = sorted({c.currency for c in COUNTRIES.values()} - {payment["currency"]})
                return with_values(payment, {"currency": rng.choice(others)}), ("currency", "merchant.country")
            elsewhere = {"pos": "recurring", "atm": "ecom", "ecom": "atm", "recurring": "pos"}[channel]
            return with_values(payment, {"channel": elsewhere}), ("channel", "entry_mode")
        if kind == "amount_out_of_pattern":  # the price of a flight for a coffee: a normal amount in another category
            if payment["merchant"]["category"] not in SMALL_TICKET:
                return None
            euros = CATEGORIES["travel"].euros * rng.lognormvariate(0.4, 0.3)
            amount = local_amount(euros, payment["merchant"]["country"])
            return with_values(payment, {"amount": amount}), ("amount",)
        if kind == "unseen_category":
            name = rng.choice(tuple(UNSEEN))
            return with_values(payment, {name: rng.choice(UNSEEN[name][self._live])}), (name,)
        if kind == "field_swap":
            return self._field_swap(payment)
        amount = payment["amount"]
        return (with_values(payment, {"amount": scaled(amount, 100)}), ("amount",)) if amount >= 5 else None

    def _field_swap(self, payment: Payment) -> Change | None:
        """Two fields of the payment before: two records got mixed up on the way."""
        previous = self._previous
        if previous is None:
            return None
        pairs = (("channel", "entry_mode"), ("currency", "customer.country"), ("merchant.category", "channel"))
        for fields in self._rng.sample(pairs, len(pairs)):
            if all(value_of(payment, name) != value_of(previous, name) for name in fields):
                return with_values(payment, {name: value_of(previous, name) for name in fields}), fields
        return None

    def _odd_hour_burst(self, before: Payment) -> Iterator[Marked]:
        """One card, at four in the morning, buys one thing after the other in shops that are closed then."""
        rng, country = self._rng, before["customer"]["country"]
        for number in range(BURST_LENGTH):
            category = rng.choice(("electronics", "fashion", "pharmacy"))
            kind = CATEGORIES[category]
            moment = datetime.fromisoformat(before["time"]) + timedelta(seconds=1 + number)
            changed = {
                **before,
                "id": f"{before['id']}-{number}",
                "time": moment.strftime("%Y-%m-%dT%H:%M:%SZ"),
                "merchant": {"name": rng.choice(kind.merchants), "category": category, "country": country},
                "amount": local_amount(kind.euros * rng.lognormvariate(0.5, 0.3), country),
                "currency": COUNTRIES[country].currency,
                "channel": "pos",
                "entry_mode": "chip_pin",
                "device": "card",
            }
            self._burst_end = changed["time"]
            yield changed, Planted(changed["id"], "odd_hour_burst", ("time", "merchant.category"))


class Summary(NamedTuple):
    """What came of a demo.

    kinds             planted and alerted payments of each kind that was planted, without repetitions
    normal            payments that were not planted
    false_alerts      those of them that were alerted
    repeated_alerts   alerts of a payment that had one
    """

    kinds: Mapping[str, tuple[int, int]]
    normal: int
    false_alerts: int
    repeated_alerts: int

    @property
    def total(self) -> tuple[int, int]:
        """All planted payments, and those of them that were alerted."""
        planted, alerted = zip(*self.kinds.values(), strict=True) if self.kinds else ((), ())
        return sum(planted), sum(alerted)

    @property
    def recall(self) -> float:
        """Recall, 0 where nothing was planted."""
        return self.total[1] / self.total[0] if self.kinds else 0.0

    @property
    def false_share(self) -> float:
        """Share of the normal payments that were alerted."""
        return self.false_alerts / self.normal if self.normal else 0.0

    @property
    def passed(self) -> bool:
        """At least 80% of what was planted is alerted, and less than 1% of what is normal."""
        return self.recall >= MIN_RECALL and self.false_share < MAX_FALSE_SHARE


@dataclass(slots=True)
class Ledger:
    """What the demo knows and the worker doesn't: every payment that was sent and every one that was alerted, by id."""

    sent: int = 0
    alerts: int = 0
    _truth: dict[str, Planted] = field(default_factory=dict)
    _alerted: set[str] = field(default_factory=set)

    def send(self, planted: Planted | None) -> None:
        """Note a payment on its way, with the truth about it (None = normal)."""
        self.sent += 1
        if planted is not None:
            self._truth[planted.id] = planted

    def alert(self, payment_id: str) -> Planted | None:
        """Note an alert; returns the truth about its payment."""
        self.alerts += 1
        self._alerted.add(payment_id)
        return self._truth.get(payment_id)

    def summary(self) -> Summary:
        """The result so far."""
        ids_of = {kind: {p.id for p in self._truth.values() if p.kind == kind} for kind in KINDS}
        return Summary(
            kinds={kind: (len(ids), len(ids & self._alerted)) for kind, ids in ids_of.items() if ids},
            normal=self.sent - len(self._truth),
            false_alerts=len(self._alerted - self._truth.keys()),
            repeated_alerts=self.alerts - len(self._alerted),
        )
