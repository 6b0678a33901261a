"""Single rounds of make chaos: real workers on Apache Kafka, exactly once, judged after each fault."""

import tempfile
from collections.abc import Iterator
from pathlib import Path

import pytest

from tests.brokers import KAFKA_HOME
from tests.chaos import faults
from tests.chaos.crowd import Crowd
from tests.chaos.run import Run, outage

pytestmark = [pytest.mark.broker, pytest.mark.kafka]


@pytest.fixture(scope="module")
def run() -> Iterator[Run]:
    """Two workers, traffic, and a read_committed reader that watches through all of these tests."""
    crowd = Crowd(Path(KAFKA_HOME or ""), Path(tempfile.mkdtemp(prefix="faults-")) / "site", "exactly_once", workers=2)
    try:
        with Run(crowd, exactly_once=True) as run:
            run.settle("start")
            yield run
    finally:
        crowd.close()


def test_a_worker_that_was_frozen_beyond_its_session_repeats_nothing(run: Run) -> None:
    run.round(1, 1, faults.freeze_beyond_the_session)


def test_a_worker_that_was_replaced_while_it_was_frozen_gives_up(run: Run) -> None:
    run.round(2, 2, faults.replace_the_frozen)


def test_without_a_transaction_coordinator_for_a_while_nothing_is_lost_or_repeated(run: Run) -> None:
    run.round(3, 3, faults.kill_the_broker)


def test_a_broker_that_is_away_costs_little_cpu_and_the_workers_go_on_by_themselves(run: Run) -> None:
    run.round(4, 4, outage(8.0))
