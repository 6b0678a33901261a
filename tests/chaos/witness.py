"""A read_committed reader that watches the input and all results from the first record on, whatever happens."""

import contextlib
import threading
import time
from collections.abc import Mapping
from typing import Any

import orjson
from kafka import TopicPartition
from kafka import errors as kafka_errors

from tests.chaos.oracle import Place, Result, Seen
from worker.broker.client import Connection, build_consumer
from worker.errors import WorkerError
from worker.records import Partition, RawMessage

POLL_MS = 200


class Witness:
    """Reads on a thread of its own. `lock` guards what it has seen.

    partitions: of each topic, at the start. unjudged: input records that nobody has taken yet, in offset order per
    partition; compared: what each score was compared with.
    """

    def __init__(
        self, connection: Connection, partitions: Mapping[str, int], *, inputs: str, scores: str, alerts: str, dead: str
    ) -> None:
        self.seen = Seen()
        self.unjudged: list[RawMessage] = []
        self.compared: dict[Place, tuple[float, float | None]] = {}
        self.lock = threading.Lock()
        self.trouble = ""
        self._take = {inputs: self._input, scores: self._score, alerts: self._alert, dead: self._dead_letter}
        self._places: list[TopicPartition] = []
        self._partitions = dict(partitions)
        self._client = build_consumer(connection, group_id=None, isolation_level="read_committed", fetch_max_wait_ms=50)
        self._positions: dict[Partition, int] = {}
        self._expected: dict[Any, int] = {}
        self._paused = threading.Event()
        self._stop = threading.Event()
        self._thread = threading.Thread(target=self._watch, name="witness", daemon=True)
        self._thread.start()

    def pause(self, seconds: float) -> None:
        """Be a slow reader for so long."""
        self._paused.set()
        time.sleep(seconds)
        self._paused.clear()

    def watch_also(self, topic: str, partitions: int) -> None:
        """The topic has so many partitions from now on."""
        with self.lock:
            self._partitions[topic] = partitions

    def has_reached(self, ends: Mapping[Partition, int]) -> bool:
        """Whether everything before these offsets was read, or will never be readable."""
        return all(self._positions.get(partition, 0) >= end for partition, end in ends.items())

    def close(self) -> None:
        """The end of it."""
        self._stop.set()
        self._thread.join()
        with contextlib.suppress(kafka_errors.KafkaError, RuntimeError, OSError):
            self._client.close(autocommit=False)

    def _watch(self) -> None:
        while not self._stop.is_set():
            if self._paused.is_set():
                time.sleep(0.05)
                continue
            try:
                self._take_new_partitions()
                polled = self._client.poll(timeout_ms=POLL_MS)
                positions = {Partition(*place): self._client.position(place, timeout_ms=0) for place in self._places}
            except (kafka_errors.KafkaError, WorkerError, OSError):
                time.sleep(0.1)  # the client heals by itself
                continue
            with self.lock:
                for place, messages in polled.items():
                    self._note(place, messages)
                self._positions = {place: offset or 0 for place, offset in positions.items()}

    def _take_new_partitions(self) -> None:
        with self.lock:
            places = [TopicPartition(topic, n) for topic, count in self._partitions.items() for n in range(count)]
        if added := [place for place in places if place not in self._places]:
            self._client.assign(places)
            self._places = places
            for place in added:
                self._client.seek(place, 0)

    def _note(self, place: Any, messages: list[RawMessage]) -> None:
        for message in messages:
            if message.offset < self._expected.get(place, 0):
                self.trouble = f"the reader itself went back: {place} {message.offset}"
            self._expected[place] = message.offset + 1
            self._take[message.topic](message)

    def _input(self, message: RawMessage) -> None:
        place = Place(message.partition, message.offset)
        (self.seen.tombstones if message.value is None else self.seen.records).add(place)
        self.unjudged.append(message)

    def _score(self, message: RawMessage) -> None:
        document = orjson.loads(message.value or b"")
        place = _source(document)
        self.seen.scores.append(Result(place, message.partition, flagged=document["alert"]))
        self.compared[place] = (document["score"], document["threshold"])

    def _alert(self, message: RawMessage) -> None:
        document = orjson.loads(message.value or b"")
        self.seen.alerts.append(Result(_source(document), message.partition, document["alert_id"]))

    def _dead_letter(self, message: RawMessage) -> None:
        headers = dict(message.headers)
        place = Place(int(headers["source.partition"] or b""), int(headers["source.offset"] or b""))
        self.seen.dead_letters.append(Result(place, message.partition))


def _source(document: Mapping[str, Any]) -> Place:
    return Place(document["source"]["partition"], document["source"]["offset"])
