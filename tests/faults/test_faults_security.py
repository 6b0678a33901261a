"""TLS with SCRAM and mutual TLS on Apache Kafka, from settings alone; what is wrong is said, secrets never are."""

import shutil
from collections.abc import Callable, Mapping
from pathlib import Path

import pytest

from devtools import traffic
from devtools.brokers import produce, read_all
from devtools.sites import Site
from tests.faults.secure import KEY_PASSWORD, PASSWORD, Certificates, SecureBroker
from worker.records import Outgoing

pytestmark = [
    pytest.mark.broker,
    pytest.mark.kafka,
    pytest.mark.skipif(shutil.which("openssl") is None, reason="needs openssl"),
]
SECRETS = (PASSWORD, KEY_PASSWORD)


def secure_settings(secure_broker: SecureBroker, folder: Path, listener: str) -> Mapping[str, str]:
    if listener == "mutual":
        return secure_broker.mutual_settings(folder)
    return secure_broker.scram_settings(folder) if listener == "scram" else secure_broker.mounted_settings(folder)


@pytest.mark.parametrize(
    ("listener", "delivery"),
    [("scram", "exactly_once"), ("scram, a directory of secrets", "at_least_once"), ("mutual", "at_least_once")],
)
def test_train_check_and_run_work_from_settings_alone_and_show_no_secret(
    secure_broker: SecureBroker,
    make_site: Callable[[Mapping[str, str]], Site],
    tmp_path: Path,
    listener: str,
    delivery: str,
) -> None:
    site = make_site({**secure_settings(secure_broker, tmp_path, listener), "WORKER_DELIVERY": delivery})
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
    secure_broker: SecureBroker, make_site: Callable[[Mapping[str, str]], Site], tmp_path: Path
) -> None:
    site = make_site(secure_broker.scram_settings(tmp_path, password="wrong-horse"))
    site.put_model()
    worker = site.start(settings={"WORKER_LOG__LEVEL": "debug"})

    checked = site.run("check")

    assert checked.returncode == 1
    assert "the broker refuses the login" in checked.stdout
    assert "check sasl_plain_username and sasl_plain_password" in checked.stdout
    assert worker.wait() == 1
    assert "the broker refuses the login" in worker.log.read_text().splitlines()[-1]
    assert not worker.said("wrong-horse")
    assert "wrong-horse" not in checked.stdout + checked.stderr


def test_a_foreign_authority_is_named_as_the_reason(
    secure_broker: SecureBroker, make_site: Callable[[Mapping[str, str]], Site], tmp_path: Path
) -> None:
    foreign = Certificates(tmp_path / "foreign")
    site = make_site(secure_broker.scram_settings(tmp_path, ssl_cafile=str(foreign.ca)))

    checked = site.run("check")

    assert checked.returncode == 1
    assert "the certificate is refused" in checked.stdout
    assert "check ssl_cafile" in checked.stdout


def test_a_missing_client_certificate_is_named_as_the_reason(
    secure_broker: SecureBroker, make_site: Callable[[Mapping[str, str]], Site], tmp_path: Path
) -> None:
    nothing = dict.fromkeys(("ssl_certfile", "ssl_keyfile", "ssl_password"))
    site = make_site(secure_broker.mutual_settings(tmp_path, **nothing))

    checked = site.run("check")

    assert checked.returncode == 1
    assert "client certificate" in checked.stdout
    assert "ssl_certfile" in checked.stdout


def test_a_wrong_password_of_the_key_is_named_as_the_reason(
    secure_broker: SecureBroker, make_site: Callable[[Mapping[str, str]], Site], tmp_path: Path
) -> None:
    site = make_site(secure_broker.mutual_settings(tmp_path, ssl_password="not-the-staple"))

    checked = site.run("check")

    assert checked.returncode == 1
    assert "TLS file" in checked.stdout
    assert "not-the-staple" not in checked.stdout + checked.stderr
