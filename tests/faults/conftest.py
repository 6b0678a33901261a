"""One broker with TLS, logins and rights for all tests that need one."""

from collections.abc import Callable, Iterator, Mapping
from contextlib import ExitStack
from pathlib import Path

import pytest

from devtools.brokers import KAFKA_HOME
from devtools.sites import Site
from tests.faults.secure import SecureBroker
from worker.broker.client import Connection


@pytest.fixture(scope="session")
def secure_broker(tmp_path_factory: pytest.TempPathFactory) -> Iterator[SecureBroker]:
    broker = SecureBroker(Path(KAFKA_HOME or ""), tmp_path_factory.mktemp("secure"))
    yield broker
    broker.close()


@pytest.fixture
def make_site(secure_broker: SecureBroker, tmp_path: Path, group: str) -> Iterator[Callable[[Mapping[str, str]], Site]]:
    """A site whose processes reach the broker only by the given settings; the tests themselves use plaintext."""
    with ExitStack() as stack:

        def make(settings: Mapping[str, str]) -> Site:
            site = Site(tmp_path, Connection(secure_broker.bootstrap_servers), f"in-{group}", **settings)
            stack.callback(site.close)
            site.create_topics()
            return site

        yield make
