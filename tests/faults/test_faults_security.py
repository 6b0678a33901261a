"""TLS with SCRAM and mutual TLS on Apache Kafka, from settings alone; what is wrong is said, secrets never are."""

import shutil
from collections.abc import Callable, Iterator, Mapping
from contextlib import ExitStack
from pathlib import Path

import pytest

from devtools import traffic
from devtools.brokers import KAFKA_HOME, produce, read_all
from devtools.sites import Site
from tests.faults.secure import KEY_PASSWORD, PASSWORD, Certificates, SecureBroker
from worker.broker.admin import ensure_topics
from worker.broker.client import Connection
from worker.records import Outgoing

pytestmark = [
    pytest.mark.broker,
    pytest.mark.kafka,
    pytest.mark.skipif(shutil.which("openssl") is None, reason="needs openssl"),
]
SECRETS = (PASSWORD, KEY_PASSWORD)


@pytest.fixture(scope="module")
def broker(tmp_path_factory: pytest.TempPathFactory) -> Iterator[SecureBroker]:
    broker = SecureBroker(Path(KAFKA_HOME or ""), tmp_path_factory.mktemp("secure"))
    yield broker
    broker.close()


@pytest.fixture
def make_site(broker: SecureBroker, tmp_path: Path, group: str) -> Iterator[Callable[[Mapping[str, str]], Site]]:
    """A site whose processes reach the broker only by the given settings; the tests themselves use plaintext."""
    with ExitStack() as stack:

        def make(settings: Mapping[str, str]) -> Site:
            site = Site(tmp_path, Connection(broker.bootstrap_servers), f"in-{group}", **settings)
            stack.callback(site.close)
            ensure_topics(site.connection, {site.input_topic: 1, site.alerts: 1, site.dead_letters: 1, site.scores: 1})
            return site

        yield make


def secure_settings(broker: SecureBroker, folder: Path, listener: str) -> Mapping[str, str]:
    if listener == "mutual":
        return broker.mutual_settings(folder)
    return broker.scram_settings(folder) if listener == "scram" else broker.mounted_settings(folder)


@pytest.mark.parametrize(
    ("listener", "delivery"),
    [("scram", "exactly_once"), ("scram, a directory of secrets", "at_least_once"), ("mutual", "at_least_once")],
)
def test_train_check_and_run_work_from_settings_alone_and_show_no_secret(
    broker: SecureBroker, make_site: Callable[[Mapping[str, str]], Site], tmp_path: Path, listener: str, delivery: str
) -> None:
    site = make_site({**secure_settings(broker, tmp_path, listener), "WORKER_DELIVERY": delivery})
    quick = {
        "WORKER_MODEL__OPTIONS": '{"steps": 100}',
        "WORKER_TRAIN__MIN_RECORDS": "500",
        "WORKER_LOG__LEVEL": "debug",
    }
    produce(site.connection, [Outgoing(site.input_topic, m.key, m.value) for m in traffic.messages(1000)])

    trained = site.run("train", "--once", settings=quick)
    checked = site.run("check")
    worker = site.start(settings={"WORKER_LOG__LEVEL": "debug"})
    site.wait_until_drained()

    assert trained.returncode == 0, trained.stderr
    assert checked.returncode == 0, checked.stdout
    assert worker.stop() == 0, worker.log.read_text()
    assert len(read_all(site.connection, site.scores, read_committed=True)) == 1000
    said = trained.stdout + trained.stderr + checked.stdout + checked.stderr + worker.log.read_text()
    assert not [secret for secret in SECRETS if secret in said]


def test_a_wrong_password_is_named_as_the_reason_and_never_shown(
    broker: SecureBroker, make_site: Callable[[Mapping[str, str]], Site], tmp_path: Path
) -> None:
    site = make_site(broker.scram_settings(tmp_path, password="wrong-horse"))
    site.put_model()
    worker = site.start(settings={"WORKER_LOG__LEVEL": "debug"})

    checked = site.run("check")

    assert checked.returncode == 1
    assert "the broker refuses the login" in checked.stdout
    assert "check user and password" in checked.stdout
    worker.wait_for("Attempting bootstrap")  # the client names the reason, or only that the connection was closed
    assert not worker.said("wrong-horse")
    assert "wrong-horse" not in checked.stdout + checked.stderr


def test_a_foreign_authority_is_named_as_the_reason(
    broker: SecureBroker, make_site: Callable[[Mapping[str, str]], Site], tmp_path: Path
) -> None:
    foreign = Certificates(tmp_path / "foreign")
    site = make_site(broker.scram_settings(tmp_path, ssl_cafile=str(foreign.ca)))

    checked = site.run("check")

    assert checked.returncode == 1
    assert "the certificate is refused" in checked.stdout
    assert "check ssl_cafile" in checked.stdout


def test_a_missing_client_certificate_is_named_as_the_reason(
    broker: SecureBroker, make_site: Callable[[Mapping[str, str]], Site], tmp_path: Path
) -> None:
    nothing = dict.fromkeys(("ssl_certfile", "ssl_keyfile", "ssl_password"))
    site = make_site(broker.mutual_settings(tmp_path, **nothing))

    checked = site.run("check")

    assert checked.returncode == 1
    assert "client certificate" in checked.stdout
    assert "ssl_certfile" in checked.stdout


def test_a_wrong_password_of_the_key_is_named_as_the_reason(
    broker: SecureBroker, make_site: Callable[[Mapping[str, str]], Site], tmp_path: Path
) -> None:
    site = make_site(broker.mutual_settings(tmp_path, ssl_password="not-the-staple"))

    checked = site.run("check")

    assert checked.returncode == 1
    assert "TLS file" in checked.stdout
    assert "not-the-staple" not in checked.stdout + checked.stderr
