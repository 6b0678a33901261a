"""OAUTHBEARER from settings alone: tokens from a file, a command or a token endpoint, and what is said without one."""

import os
import re
import shutil
import sys
from collections.abc import Callable, Iterator, Mapping
from pathlib import Path

import pytest

from devtools import traffic
from devtools.brokers import eventually, produce
from devtools.sites import Site
from tests.faults.secure import Certificates, SecureBroker
from tests.faults.token_endpoint import CLIENT, SECRET, TokenEndpoint, unsigned_token
from worker.broker.client import Connection, build_consumer
from worker.broker.tokens import (
    Token,
    TokenProvider,
    token_from_command,
    token_from_endpoint,
    token_from_file,
)
from worker.errors import BrokerUnavailable, SettingsError, WorkerError
from worker.records import Outgoing
from worker.settings import Settings, load_settings


@pytest.fixture
def endpoint() -> Iterator[TokenEndpoint]:
    endpoint = TokenEndpoint()
    yield endpoint
    endpoint.close()


@pytest.mark.broker
@pytest.mark.kafka
@pytest.mark.skipif(shutil.which("openssl") is None, reason="needs openssl")
def test_check_and_run_work_with_an_endpoint_over_tls_and_log_in_again_with_new_tokens(
    secure_broker: SecureBroker, make_site: Callable[[Mapping[str, str]], Site], tmp_path: Path
) -> None:
    endpoint = TokenEndpoint(secure_broker.certificates.keystore)
    endpoint.lifetime_s = 4.0
    secret = tmp_path / "client-secret"
    secret.write_text(SECRET + "\n")
    settings = secure_broker.token_settings(
        WORKER_OAUTH__TOKEN_ENDPOINT=endpoint.url,
        WORKER_OAUTH__CLIENT_ID=CLIENT,
        WORKER_OAUTH__CLIENT_SECRET=f'{{"file": "{secret}"}}',
        WORKER_OAUTH__SCOPE="kafka",
        WORKER_OAUTH__CA_FILE=str(secure_broker.certificates.ca),
        WORKER_LOG__LEVEL="debug",
    )
    site = make_site(settings)
    site.put_model()
    records = [Outgoing(site.input_topic, m.key, m.value) for m in traffic.messages(200)]

    produce(site.connection, records)
    worker = site.start()
    site.wait_until_drained()
    count = len(endpoint.tokens)
    eventually(lambda: len(endpoint.tokens) >= count + 2, 60, "new tokens for the logins that are due")
    produce(site.connection, records)
    site.wait_until_drained()
    checked = site.run("check")

    assert worker.stop() == 0, worker.log.read_text()
    assert checked.returncode == 0, checked.stdout
    assert set(endpoint.scopes) == {"kafka"}
    said = worker.log.read_text() + checked.stdout + checked.stderr
    assert not [secret for secret in (SECRET, *endpoint.tokens) if secret in said]
    endpoint.close()


@pytest.mark.broker
@pytest.mark.kafka
@pytest.mark.skipif(shutil.which("openssl") is None, reason="needs openssl")
@pytest.mark.parametrize("source", ["file", "command", "command with JSON"])
def test_a_client_logs_in_with_a_token_from(secure_broker: SecureBroker, tmp_path: Path, source: str) -> None:
    path, text = tmp_path / "token", unsigned_token()
    path.write_text(text if source != "command with JSON" else f'{{"access_token": "{text}", "expires_in": 60}}')
    options = {"security_protocol": "SASL_PLAINTEXT", "sasl_mechanism": "OAUTHBEARER"}
    fetch = {"file": lambda: token_from_file(str(path))}.get(source, lambda: token_from_command(f"cat {path}"))

    build_consumer(Connection(secure_broker.token, options=options, token=TokenProvider(fetch))).close()


@pytest.mark.broker
@pytest.mark.kafka
@pytest.mark.skipif(shutil.which("openssl") is None, reason="needs openssl")
def test_check_names_the_token_where_the_broker_refuses_it(
    secure_broker: SecureBroker, make_site: Callable[[Mapping[str, str]], Site], tmp_path: Path
) -> None:
    (tmp_path / "token").write_text("not-one-of-theirs")
    site = make_site(secure_broker.token_settings(WORKER_OAUTH__TOKEN_FILE=str(tmp_path / "token")))

    checked = site.run("check")

    assert checked.returncode == 1
    assert "the broker refuses the login" in checked.stdout
    assert "check where the token comes from" in checked.stdout
    assert "password" not in checked.stdout
    assert "not-one-of-theirs" not in checked.stdout + checked.stderr


def from_endpoint(endpoint: TokenEndpoint, secret: str = SECRET, ca_file: str | None = None) -> Token:
    return token_from_endpoint(endpoint.url, client_id=CLIENT, client_secret=secret, ca_file=ca_file)


def test_an_endpoint_gives_a_token_for_as_long_as_it_says(endpoint: TokenEndpoint) -> None:
    token = from_endpoint(endpoint)

    assert (token.text, token.lifetime_s) == (endpoint.tokens[0], 600.0)
    assert endpoint.scopes == [None]


@pytest.mark.parametrize(
    ("status", "answer", "error", "words"),
    [
        (400, None, SettingsError, "refuses: HTTP 400 not_now: come back later; check"),
        (401, None, SettingsError, "HTTP 401"),
        (403, None, SettingsError, "HTTP 403"),
        (404, None, SettingsError, "HTTP 404"),
        (302, None, SettingsError, "HTTP 302"),
        (429, None, BrokerUnavailable, "HTTP 429"),
        (500, None, BrokerUnavailable, "HTTP 500"),
        (503, None, BrokerUnavailable, "HTTP 503"),
        (None, b"<html>", SettingsError, "no JSON object with an access_token"),
        (None, b"[]", SettingsError, "no JSON object with an access_token"),
        (None, b'{"id_token": "x"}', SettingsError, "no JSON object with an access_token"),
        (None, b'{"access_token": "x", "expires_in": "soon"}', SettingsError, "no JSON object"),
        (None, b'{"access_token": ""}', SettingsError, "there is no token in it"),
        (None, b'{"access_token": "a\\u0001b"}', SettingsError, "a token is one word"),
        (None, b'{"access_token": "x", "expires_in": -5}', BrokerUnavailable, "expired at 20"),
    ],
)
def test_what_an_endpoint_answers_instead_of_a_token_is_said_by_what_can_be_done(
    endpoint: TokenEndpoint, status: int | None, answer: bytes | None, error: type[WorkerError], words: str
) -> None:
    endpoint.status, endpoint.answer = status, answer

    with pytest.raises(error, match=re.escape(words)) as caught:
        from_endpoint(endpoint)

    assert SECRET not in str(caught.value)


def test_a_wrong_secret_is_refused_in_the_words_of_the_endpoint(endpoint: TokenEndpoint) -> None:
    with pytest.raises(SettingsError, match="invalid_client: no such client or secret; check"):
        from_endpoint(endpoint, secret="another")


def test_an_endpoint_that_is_away_is_waited_for(endpoint: TokenEndpoint) -> None:
    endpoint.close()

    with pytest.raises(BrokerUnavailable, match="does not answer"):
        from_endpoint(endpoint)


@pytest.mark.skipif(shutil.which("openssl") is None, reason="needs openssl")
def test_an_endpoint_with_a_foreign_certificate_is_refused(tmp_path: Path) -> None:
    certificates = Certificates(tmp_path / "tls")
    endpoint = TokenEndpoint(certificates.keystore)

    with pytest.raises(SettingsError, match=r"check \[oauth.ca_file\]"):
        from_endpoint(endpoint)
    with pytest.raises(SettingsError, match=r"\[oauth.ca_file\] = '/nowhere'"):
        from_endpoint(endpoint, ca_file="/nowhere")
    assert from_endpoint(endpoint, ca_file=str(certificates.ca)).text
    endpoint.close()


PYTHON = f"{sys.executable} -c"


@pytest.mark.parametrize(
    ("command", "error", "words"),
    [
        ("/no/such/command", SettingsError, "can't be run: No such file"),
        ("'", SettingsError, "can't be run: No closing quotation"),
        ("/", SettingsError, "can't be run: Permission denied"),
        ("true", SettingsError, "there is no token in it"),
        ("echo two words", SettingsError, "a token is one word"),
        ("echo '{}'", SettingsError, "no JSON object with an access_token"),
        ("false", BrokerUnavailable, "exit code 1: it says nothing"),
        ("sh -c 'echo not now >&2; exit 3'", BrokerUnavailable, "exit code 3: not now"),
        (f"echo {unsigned_token(-100.0)}", BrokerUnavailable, "the token expired at 20"),
    ],
)
def test_a_command_without_a_token_is_named(command: str, error: type[WorkerError], words: str) -> None:
    with pytest.raises(error, match=re.escape(words)):
        token_from_command(command)


@pytest.mark.parametrize(
    ("content", "error", "words"),
    [
        (None, SettingsError, "no token can be read: No such file"),
        (b"", SettingsError, "there is no token in it"),
        (b"\xff\xfe", SettingsError, "it is not text"),
        (b"two\nlines", SettingsError, "a token is one word"),
        ("tökén".encode(), SettingsError, "a token is one word"),
        (unsigned_token(-100.0).encode(), BrokerUnavailable, "the token expired at 20"),
    ],
)
def test_a_file_without_a_token_is_named(
    tmp_path: Path, content: bytes | None, error: type[WorkerError], words: str
) -> None:
    if content is not None:
        (tmp_path / "token").write_bytes(content)

    with pytest.raises(error, match=re.escape(words)):
        token_from_file(str(tmp_path / "token"))


class Source:
    """Gives numbered tokens, or raises what it is told to."""

    def __init__(self, lifetime_s: float | None, *, reusable: bool = True) -> None:
        self.lifetime_s, self.reusable, self.count = lifetime_s, reusable, 0
        self.error: Exception | None = None
        self.now = 0.0

    def __call__(self) -> Token:
        if self.error is not None:
            raise self.error
        self.count += 1
        return Token(f"token-{self.count}", self.lifetime_s, self.reusable)


def test_a_token_is_used_again_until_shortly_before_it_expires() -> None:
    source = Source(100.0)
    provider = TokenProvider(source, clock=lambda: source.now)

    tokens = []
    for source.now in (0.0, 79.0, 81.0, 150.0, 162.0):
        tokens.append(provider.token())

    assert tokens == ["token-1", "token-1", "token-2", "token-2", "token-3"]


def test_a_token_that_is_still_good_bridges_an_outage_of_its_source() -> None:
    source = Source(100.0)
    provider = TokenProvider(source, clock=lambda: source.now)
    provider.token()
    source.now, source.error = 90.0, BrokerUnavailable("away")

    assert provider.token() == "token-1"
    source.now = 101.0
    with pytest.raises(BrokerUnavailable):
        provider.token()
    source.error = None
    assert provider.token() == "token-2"


def test_a_token_that_does_not_say_when_it_expires_is_kept_for_a_minute_and_one_of_a_file_never() -> None:
    silent, file = Source(None), Source(None, reusable=False)
    provider = TokenProvider(silent, {"logicalCluster": "a"}, clock=lambda: silent.now)
    of_file = TokenProvider(file)

    assert [provider.token(), provider.token()] == ["token-1", "token-1"]
    silent.now = 61.0
    assert provider.token() == "token-2"
    assert [of_file.token(), of_file.token()] == ["token-1", "token-2"]
    assert provider.extensions() == {"logicalCluster": "a"}


@pytest.mark.parametrize(
    ("variables", "words"),
    [
        ({"TOKEN_FILE": "a", "TOKEN_COMMAND": "b"}, "only one of them can give the tokens"),
        ({"TOKEN_ENDPOINT": "ftp://host/token"}, "must be an https:// or http:// URL"),
        ({"TOKEN_ENDPOINT": "https://host/token"}, "needs WORKER_OAUTH__CLIENT_ID and WORKER_OAUTH__CLIENT_SECRET"),
        ({"EXTENSIONS": "[]"}, "must be a JSON object"),
        ({"CLIENT_SECRET": '{"file": "/nowhere"}'}, "can't read /nowhere"),
        ({"SECRET": "x"}, "unknown setting WORKER_OAUTH__SECRET: the nearest valid name is"),
    ],
)
def test_settings_that_do_not_go_together_are_named(variables: Mapping[str, str], words: str) -> None:
    with pytest.raises(SettingsError, match=re.escape(words)):
        load({f"WORKER_OAUTH__{name}": text for name, text in variables.items()})


def test_the_clients_secret_is_among_what_no_output_shows(tmp_path: Path) -> None:
    (tmp_path / "secret").write_text("from-a-file\n")
    mounted = tmp_path / "mounted"
    mounted.mkdir()
    (mounted / "WORKER_OAUTH__CLIENT_SECRET").write_text("mounted\n")

    assert load({"WORKER_OAUTH__CLIENT_SECRET": "in-a-variable"}).secrets() == ["in-a-variable"]
    assert load({"WORKER_OAUTH__CLIENT_SECRET": f'{{"file": "{tmp_path}/secret"}}'}).secrets() == ["from-a-file"]
    assert load({"WORKER_SECRETS_DIR": str(mounted)}).secrets() == ["mounted"]


def load(variables: Mapping[str, str]) -> Settings:
    return load_settings(variables, dotenv=os.devnull)
