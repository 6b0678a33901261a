"""A schema registry that is away holds the batch; nothing of the topic becomes a dead letter for it."""

from collections.abc import Sequence

import pytest

from devtools import traffic
from devtools.stage import GROUP, Guarantee, Stage, assert_as_undisturbed
from worker.errors import RegistryUnavailable
from worker.formats.base import Decoded
from worker.formats.json_objects import JsonDecoder
from worker.pipeline import Model, Pipeline
from worker.processes.first_records import FirstRecords
from worker.records import Message, Partition, RawMessage
from worker.redaction import Redaction


class Forgetful(JsonDecoder):
    """As a registry's decoder that has to ask again for a schema that it knew, with the registry away."""

    away = False

    def decode(self, messages: Sequence[RawMessage]) -> Decoded:
        if self.away:
            raise RegistryUnavailable("away")
        return super().decode(messages)


@pytest.mark.parametrize("guarantee", ["at_least_once", "exactly_once"])
def test_a_batch_whose_schemas_can_not_be_asked_for_waits_as_it_is(
    guarantee: Guarantee, monkeypatch: pytest.MonkeyPatch
) -> None:
    stage = Stage(guarantee=guarantee).feed(traffic.messages(600))
    worker = stage.worker()
    process = worker.loop.pipeline.process
    failures = [RegistryUnavailable("away")] * 3

    def process_or_fail(messages: list[RawMessage], detected_at: str | None = None) -> object:
        if failures:
            raise failures.pop()
        return process(messages, detected_at)

    monkeypatch.setattr(worker.loop.pipeline, "process", process_or_fail)
    worker.loop.step()

    assert stage.broker.offsets(GROUP) == {}
    assert [str(error) for error in worker.seen.retries] == ["away"]
    worker.drain()
    assert len(worker.seen.retries) == 3
    assert_as_undisturbed(stage)


def test_records_that_wait_for_a_schema_are_left_to_the_new_owner_of_their_partition(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    stage = Stage(partitions=2).feed(traffic.messages(2000, partitions=2))
    first, second = stage.worker("a"), stage.worker("b")
    process, away = first.loop.pipeline.process, [True]

    def process_or_fail(messages: list[RawMessage], detected_at: str | None = None) -> object:
        if away[0]:
            raise RegistryUnavailable("away")
        return process(messages, detected_at)

    monkeypatch.setattr(first.loop.pipeline, "process", process_or_fail)
    for _ in range(3):
        first.loop.step()
        second.loop.step()
    away[0] = False
    while not stage.is_drained():
        second.loop.step()
        first.loop.step()

    assert len(first.seen.owned) == len(second.seen.owned) == 1
    assert_as_undisturbed(stage)


def test_where_a_dead_letter_can_not_be_masked_now_no_threshold_has_moved(monkeypatch: pytest.MonkeyPatch) -> None:
    decoder, model = Forgetful(), Model(traffic.bundle(), redaction=Redaction(["id"]))
    pipeline = Pipeline(model, threshold_factory=traffic.plain_threshold(), decoder=decoder)
    messages = [*traffic.messages(200), Message("in", 0, 200, 0, None, b"no JSON")]
    before = pipeline.head(Partition("in", 0))
    monkeypatch.setattr(decoder, "rows", _away)

    with pytest.raises(RegistryUnavailable):
        pipeline.process(messages)

    assert pipeline.head(Partition("in", 0)) == before
    monkeypatch.undo()
    assert len(pipeline.process(messages).dead_letters) == 1


def test_first_records_that_can_not_be_read_again_are_not_looked_at() -> None:
    decoder = Forgetful()
    first = FirstRecords(traffic.schema(), decoder)
    decoder.away = True

    assert first.note(traffic.messages(1_000)) is None
    decoder.away = False
    rows = [Message("in", 0, at, 0, None, b'{"amuont": 1, "channel": "web"}') for at in range(1_000)]
    assert "did you mean 'amuont'" in (first.note(rows) or "")


def _away(values: object) -> None:
    raise RegistryUnavailable(f"away, {values!r:.9}")
