"""How long an anomaly went on before its first alert."""

from collections import Counter
from collections.abc import Iterable
from dataclasses import dataclass

from worker.texts import significant

INCIDENT_GAP_MS = 3_600_000


@dataclass(slots=True)
class _Incident:
    first_ms: int
    last_ms: int
    alert_ms: int | None = None


class Incidents:
    """Groups labelled anomalies by kind and key into incidents, and keeps how long each took to be alerted.

    Works badly where labels have no kind and records no key: anomalies that have nothing to do with each other then
    count as one incident as long as they overlap. An incident without any alert says nothing about time; look at the
    share of detected ones first. Records are expected in order of their event times, roughly.

    gap_ms   anomalies of one kind and key that are at most this far apart on the event clock belong together

    Memory holds the open incidents, and detection times rounded to 3 digits: bounded whatever the number of records.

    >>> incidents = Incidents(gap_ms=60_000)
    >>> incidents.add([("fraud", b"c1", 0, False), ("fraud", b"c1", 30_000, True), ("fraud", b"c2", 30_000, False)])
    >>> incidents.finish()  # two of them; one was alerted, after 30 s
    (2, 1, 30.0, 30.0)

    The windows of Lavin & Ahmad (2015), Evaluating real-time anomaly detection algorithms, by gaps instead of by hand.
    """

    def __init__(self, gap_ms: int = INCIDENT_GAP_MS) -> None:
        self._gap_ms = gap_ms
        self._open: dict[tuple[str, bytes | None], _Incident] = {}
        self._detected_s: Counter[float] = Counter()
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
            self._detected_s[significant(max(0, incident.alert_ms - incident.first_ms) / 1000, 3)] += 1

    def finish(self) -> tuple[int, int, float | None, float | None]:
        """(incidents, detected ones, median and 90% quantile of the seconds until the first alert of those)."""
        for incident in self._open.values():
            self._close(incident)
        self._open.clear()
        detected = self._detected_s.total()
        return self._missed + detected, detected, self._quantile(0.5), self._quantile(0.9)

    def _quantile(self, share: float) -> float | None:
        passed, target = 0, share * self._detected_s.total()
        for seconds, count in sorted(self._detected_s.items()):
            passed += count
            if passed >= target:
                return seconds
        return None
