"""A small run of the fuzz: `make fuzz RECORDS=300000` is the large one."""

from pathlib import Path

import pytest

from devtools.brokers import Broker
from tests.fuzz.fuzz import fuzz


@pytest.mark.broker
def test_each_mutated_record_is_scored_dead_lettered_skipped_or_named_once(
    kafka_broker: Broker, tmp_path: Path, group: str
) -> None:
    report = fuzz(kafka_broker, tmp_path, f"fuzz-{group}", records=6000, seed=1, timeout_s=90)

    assert report.wrong == []
    assert report.scored > 1500
    assert report.dead_letters.keys() >= {"invalid_json", "not_finite"}  # an odd field costs no record
    if kafka_broker.kind != "embedded":
        assert report.dead_letters["unreadable"] > 0
        assert report.named > 0
