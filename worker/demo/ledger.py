"""What the demo knows and the worker doesn't: which payments were planted, and which of them were alerted."""

from dataclasses import dataclass, field

from worker.demo.anomalies import KINDS, Planted

MIN_RECALL = 0.8
MAX_FALSE_SHARE = 0.01


@dataclass(frozen=True, slots=True)
class KindCount:
    """Payments of one kind: how many were planted, how many of them were alerted."""

    kind: str
    planted: int
    alerted: int


@dataclass(frozen=True, slots=True)
class Summary:
    """The result of a demo: a count per kind that was planted, and the normal payments that were alerted."""

    kinds: tuple[KindCount, ...]
    normal: int
    false_alerts: int
    repeated_alerts: int

    @property
    def planted(self) -> int:
        """All planted payments."""
        return sum(count.planted for count in self.kinds)

    @property
    def alerted(self) -> int:
        """The planted payments that were alerted."""
        return sum(count.alerted for count in self.kinds)

    @property
    def recall(self) -> float:
        """Recall, 0 where nothing was planted."""
        return self.alerted / self.planted if self.planted else 0.0

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
    """Every payment that was sent, and every payment that was alerted, by id."""

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
        counts = []
        for kind in KINDS:
            ids = {planted.id for planted in self._truth.values() if planted.kind == kind}
            if ids:
                counts.append(KindCount(kind, len(ids), len(ids & self._alerted)))
        return Summary(
            kinds=tuple(counts),
            normal=self.sent - len(self._truth),
            false_alerts=len(self._alerted - self._truth.keys()),
            repeated_alerts=self.alerts - len(self._alerted),
        )
