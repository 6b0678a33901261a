"""The live stretch of the demo: payments out at a steady rate, alerts in, progress on the screen."""

import time
from collections.abc import Iterator
from itertools import islice
from statistics import median

import orjson

from worker.broker.client import Connection
from worker.broker.consumer import GroupConsumer
from worker.broker.producer import AcknowledgedProducer
from worker.broker.ranges import TopicReader
from worker.demo.anomalies import Marked
from worker.demo.ledger import Ledger
from worker.demo.processes import WorkerCommand
from worker.demo.screen import Screen
from worker.errors import FatalError
from worker.records import Outgoing, Partition

INPUT, ALERTS, GROUP = "payments", "alerts", "demo-worker"
PARTITIONS = 2
DEADLINE_S = 60.0
PROGRESS_EVERY_S = 0.5


class LiveTraffic:
    """Owns the demo's Kafka clients. Raises FatalError when the worker dies or falls silent."""

    def __init__(self, link: Connection, worker: WorkerCommand, ledger: Ledger, screen: Screen, rate: float) -> None:
        self._link, self._worker, self._ledger, self._screen, self._rate = link, worker, ledger, screen, rate
        self._partitions = [Partition(INPUT, number) for number in range(PARTITIONS)]
        self._producer = AcknowledgedProducer(link)
        self._viewer = GroupConsumer(link, [ALERTS], "demo-viewer")
        self._offsets = GroupConsumer(link, [INPUT], GROUP)  # only asks for offsets: it never polls, so it never joins
        self._clock = ""
        self._delays_ms: list[float] = []
        self._scored, self._speed, self._progress_at = 0, 0.0, time.monotonic()

    def send(self, payments: Iterator[Marked], *, until: float) -> None:
        """Payments at the rate until that moment (monotonic), alerts shown meanwhile."""
        began = time.monotonic()
        while (now := time.monotonic()) < until:
            self._worker.require_running()
            for payment, planted in islice(payments, int((now - began) * self._rate) - self._ledger.sent):
                key = payment["customer"]["id"].encode()
                self._ledger.send(planted)
                self._producer.send(Outgoing(INPUT, key, orjson.dumps(payment)))
                self._clock = payment["time"]
            self._show_alerts()
            self._follow_progress(left_s=until - now)
        self._producer.flush(DEADLINE_S)

    def drain(self) -> None:
        """Until every payment is scored and every alert has been shown; FatalError after a minute."""
        deadline = time.monotonic() + DEADLINE_S
        while self._scored < self._ledger.sent:
            self._worker.require_running()
            require_before(deadline, f"only {self._scored} of {self._ledger.sent} payments are scored")
            self._show_alerts()
            self._follow_progress(left_s=0.0)
        ends = self._alert_ends()
        while any(self._viewer.positions().get(partition, 0) < end for partition, end in ends.items()):
            require_before(deadline, "the alerts can't be read to their end")
            self._show_alerts()

    def _alert_ends(self) -> dict[Partition, int]:
        reader = TopicReader(self._link)
        try:
            return dict(reader.end_offsets(ALERTS))
        finally:
            reader.close(1.0)

    def _show_alerts(self) -> None:
        for messages in self._viewer.poll(timeout_ms=50, max_records=500).values():
            for message in messages:
                alert = orjson.loads(message.value or b"null")
                self._delays_ms.append(time.time() * 1000 - alert["source"]["timestamp_ms"])
                self._screen.alert(alert, self._ledger.alert(alert["ids"]["id"]))

    def _follow_progress(self, left_s: float) -> None:
        """How far the worker is, by the offsets that it committed; twice a second."""
        now = time.monotonic()
        if now - self._progress_at >= PROGRESS_EVERY_S:
            scored = sum(offset or 0 for offset in self._offsets.committed(self._partitions).values())
            self._speed = (scored - self._scored) / (now - self._progress_at)
            self._scored, self._progress_at = scored, now
        self._screen.status(
            clock=self._clock,
            sent=self._ledger.sent,
            scored=self._scored,
            per_second=self._speed,
            alerts=self._ledger.alerts,
            left_s=left_s,
        )

    def median_delay_ms(self) -> float:
        """Median time from a payment's sending to its alert's arrival here, milliseconds; NaN without an alert."""
        return median(self._delays_ms) if self._delays_ms else float("nan")

    def close(self) -> None:
        """Never raises."""
        self._producer.close(1.0)
        self._viewer.close(1.0)
        self._offsets.close(1.0)


def require_before(deadline: float, what: str) -> None:
    """FatalError saying what is wrong, once the deadline (monotonic) has passed."""
    if time.monotonic() > deadline:
        raise FatalError(f"after {DEADLINE_S:g} s {what}")
