"""How long an anomaly went on before its first alert."""

from collections import Counter
from collections.abc import Iterable
from dataclasses import dataclass

from worker.texts import significant

INCIDENT_GAP_MS = 3_600_000
"""Anomalies of one kind and key that are at most this far apart on the event clock belong together."""


@dataclass(slots=True)
class _Incident:
    first_ms: int
    last_ms: int
    alert_ms: int | None = None


class Incidents:
    """Groups labelled anomalies by kind and key into incidents, and keeps how long each took to be alerted.

    Memory holds the open incidents, and detection times rounded to 3 digits: bounded whatever the number of records.
    """

    def __init__(self, gap_ms: int = INCIDENT_GAP_MS) -> None:
        self._gap_ms = gap_ms
        self._open: dict[tuple[str, bytes | None], _Incident] = {}
        self._taken_s: Counter[float] = Counter()
        self._missed = 0

    def add(self, anomalies: Iterable[tuple[str, bytes | None, int, bool]]) -> None:
        """Anomalies in input order: kind, key, event time in ms, alerted or not."""
        now = 0
        for kind, key, time_ms, alerted in anomalies:
            incident = self._open.get((kind, key))
            if incident is None or abs(time_ms - incident.last_ms) > self._gap_ms:
                if incident is not None:
                    self._close(incident)
                incident = self._open[(kind, key)] = _Incident(time_ms, time_ms)
            incident.last_ms = max(incident.last_ms, time_ms)
            if alerted and incident.alert_ms is None:
                incident.alert_ms = time_ms
            now = max(now, time_ms)
        for name in [name for name, incident in self._open.items() if now - incident.last_ms > self._gap_ms]:
            self._close(self._open.pop(name))

    def _close(self, incident: _Incident) -> None:
        if incident.alert_ms is None:
            self._missed += 1
        else:
            self._taken_s[significant(max(0, incident.alert_ms - incident.first_ms) / 1000, 3)] += 1

    def finish(self) -> tuple[int, int, float | None, float | None]:
        """(incidents, detected ones, median and 90% quantile of the seconds until the first alert of those)."""
        for incident in self._open.values():
            self._close(incident)
        self._open.clear()
        detected = self._taken_s.total()
        return self._missed + detected, detected, self._quantile(0.5), self._quantile(0.9)

    def _quantile(self, share: float) -> float | None:
        passed, wanted = 0, share * self._taken_s.total()
        for seconds, count in sorted(self._taken_s.items()):
            passed += count
            if passed >= wanted:
                return seconds
        return None
