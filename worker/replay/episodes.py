"""How long an anomaly went on before its first alert."""

from collections import Counter
from collections.abc import Iterable
from dataclasses import dataclass

EPISODE_GAP_MS = 3_600_000
"""Anomalies of one kind and key that are at most this far apart on the event clock belong together."""


@dataclass(slots=True)
class _Episode:
    first_ms: int
    last_ms: int
    alert_ms: int | None = None


class Episodes:
    """Groups labelled anomalies by kind and key into episodes, and keeps how long each took to be alerted.

    Memory holds the open episodes, and detection times rounded to 3 digits: bounded whatever the number of records.
    """

    def __init__(self, gap_ms: int = EPISODE_GAP_MS) -> None:
        self._gap_ms = gap_ms
        self._open: dict[tuple[str, bytes | None], _Episode] = {}
        self._taken_s: Counter[float] = Counter()
        self._missed = 0

    def add(self, anomalies: Iterable[tuple[str, bytes | None, int, bool]]) -> None:
        """Anomalies in input order: kind, key, event time in ms, alerted or not."""
        now = 0
        for kind, key, time_ms, alerted in anomalies:
            episode = self._open.get((kind, key))
            if episode is None or abs(time_ms - episode.last_ms) > self._gap_ms:
                if episode is not None:
                    self._close(episode)
                episode = self._open[(kind, key)] = _Episode(time_ms, time_ms)
            episode.last_ms = max(episode.last_ms, time_ms)
            if alerted and episode.alert_ms is None:
                episode.alert_ms = time_ms
            now = max(now, time_ms)
        for name in [name for name, episode in self._open.items() if now - episode.last_ms > self._gap_ms]:
            self._close(self._open.pop(name))

    def _close(self, episode: _Episode) -> None:
        if episode.alert_ms is None:
            self._missed += 1
        else:
            self._taken_s[float(f"{max(0, episode.alert_ms - episode.first_ms) / 1000:.3g}")] += 1

    def finish(self) -> tuple[int, int, float | None, float | None]:
        """(episodes, detected ones, median and 90% quantile of the seconds until the first alert of those)."""
        for episode in self._open.values():
            self._close(episode)
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
