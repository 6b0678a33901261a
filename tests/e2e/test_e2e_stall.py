"""A worker whose loop hangs says so: liveness fails, the stacks are in the log, and it goes on when it can."""

import json
import urllib.error
import urllib.request
from collections.abc import Iterator
from contextlib import closing
from pathlib import Path

import pytest

from devtools import traffic
from devtools.brokers import Broker, eventually, free_ports, frozen, produce
from devtools.sites import Site
from worker.broker.client import Connection
from worker.records import Outgoing

pytestmark = pytest.mark.broker
RECORDS = 20_000


@pytest.fixture
def site(own_broker: Broker, tmp_path: Path) -> Iterator[Site]:
    (port,) = free_ports(1)
    settings = {"WORKER_HTTP__PORT": str(port), "WORKER_HTTP__STALL_S": "1", "WORKER_BATCH__SIZE": "50"}
    with closing(Site(tmp_path, Connection(own_broker.bootstrap_servers), "in", **settings)) as site:
        site.create_topics()
        site.put_model()
        yield site


def livez(site: Site) -> int:
    url = f"http://127.0.0.1:{site.environment['WORKER_HTTP__PORT']}/livez"
    try:
        with urllib.request.urlopen(url, timeout=5) as answer:
            return int(answer.status)
    except urllib.error.HTTPError as error:
        with error:
            return error.code


def test_a_loop_that_waits_for_a_broker_that_hangs_fails_liveness_and_shows_where_it_stands(
    site: Site, own_broker: Broker
) -> None:
    produce(site.connection, [Outgoing("in", m.key, m.value) for m in traffic.messages(RECORDS)], timeout_s=90.0)
    worker = site.start()
    site.wait_until_beyond(0)
    eventually(lambda: livez(site) == 200, 60, "alive")

    with frozen(own_broker.pid):
        eventually(lambda: livez(site) == 503, 10, "liveness fails")
        worker.wait_for('"stalled"', 10)
    eventually(lambda: livez(site) == 200, 30, "alive again")
    worker.wait_for("moving again")

    entries = [json.loads(line) for line in worker.log.read_text().splitlines() if '"stalled"' in line]
    assert any("in publish" in entry["stacks"] for entry in entries)
    assert worker.stop() == 0
