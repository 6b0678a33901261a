"""Single rounds of make chaos: real workers on Apache Kafka, exactly once, judged after each fault."""

from collections.abc import Iterator
from pathlib import Path

import pytest

from devtools.brokers import KAFKA_HOME
from tests.chaos import faults
from tests.chaos.crowd import Crowd
from tests.chaos.run import Run, outage

pytestmark = [pytest.mark.broker, pytest.mark.kafka]


@pytest.fixture(scope="module")
def run(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Run]:
    """Two workers, traffic, and a read_committed reader that watches through all of these tests."""
    crowd = Crowd(Path(KAFKA_HOME or ""), tmp_path_factory.mktemp("faults") / "site", "exactly_once", workers=2)
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


def test_while_the_broker_and_its_coordinators_are_away_the_workers_use_little_cpu_and_then_go_on(run: Run) -> None:
    run.round(3, 3, outage(8.0))
