"""What the demo knows and the worker doesn't: which payments were planted, and which of them were alerted."""

from dataclasses import dataclass, field

from worker.demo.anomalies import KINDS, Planted

LEAST_FOUND = 0.8
MOST_FALSE = 0.01


@dataclass(frozen=True, slots=True)
class Tally:
    """How many payments of one kind were planted, and how many of them alerted."""

    kind: str
    planted: int
    found: int


@dataclass(frozen=True, slots=True)
class Summary:
    """The result of a demo: a tally per kind that was planted, and the ordinary payments that were alerted."""

    kinds: tuple[Tally, ...]
    ordinary: int
    false_alerts: int
    repeated_alerts: int

    @property
    def planted(self) -> int:
        """All planted payments."""
        return sum(tally.planted for tally in self.kinds)

    @property
    def found(self) -> int:
        """The planted payments that were alerted."""
        return sum(tally.found for tally in self.kinds)

    @property
    def found_share(self) -> float:
        """Recall, 0 where nothing was planted."""
        return self.found / self.planted if self.planted else 0.0

    @property
    def false_share(self) -> float:
        """Share of the ordinary payments that were alerted."""
        return self.false_alerts / self.ordinary if self.ordinary else 0.0

    @property
    def passed(self) -> bool:
        """At least 80% of what was planted is alerted, and less than 1% of what is ordinary."""
        return self.found_share >= LEAST_FOUND and self.false_share < MOST_FALSE


@dataclass(slots=True)
class Ledger:
    """Every payment that was sent, and every payment that was alerted, by id."""

    sent: int = 0
    alerts: int = 0
    _truth: dict[str, Planted] = field(default_factory=dict)
    _alerted: set[str] = field(default_factory=set)

    def send(self, planted: Planted | None) -> None:
        """Note a payment on its way, with the truth about it (None = ordinary)."""
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
        tallies = []
        for kind in KINDS:
            ids = {planted.id for planted in self._truth.values() if planted.kind == kind}
            if ids:
                tallies.append(Tally(kind, len(ids), len(ids & self._alerted)))
        return Summary(
            kinds=tuple(tallies),
            ordinary=self.sent - len(self._truth),
            false_alerts=len(self._alerted - self._truth.keys()),
            repeated_alerts=self.alerts - len(self._alerted),
        )
