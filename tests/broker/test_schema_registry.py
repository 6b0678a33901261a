"""The registry is asked once for each schema, over HTTP; what it says decides whether a record or the stream waits."""

import socket
from collections.abc import Iterator

import pytest

from devtools.registry import Registry, running_registry
from worker.broker.schema_registry import UNKNOWN_S, SchemaRegistry
from worker.errors import RecordError, RegistryUnavailable, SettingsError
from worker.formats.base import WriterSchema


@pytest.fixture
def registry() -> Iterator[Registry]:
    with running_registry() as registry:
        yield registry


def test_a_schema_is_asked_for_once_with_all_that_it_refers_to(registry: Registry) -> None:
    registry.add("money", "money text", "PROTOBUF")
    registry.add("item/1", "item text", "PROTOBUF", {"money.proto": "money"})
    number = registry.add("order", "order text", "PROTOBUF", {"item.proto": "item/1", "money.proto": "money"})
    client = SchemaRegistry(registry.url + "/")

    schemas = [client.schema(number) for _ in range(3)]

    references = {"money.proto": "money text", "item.proto": "item text"}
    assert schemas == [WriterSchema("PROTOBUF", "order text", references)] * 3
    assert list(schemas[0].references) == ["money.proto", "item.proto"]
    assert len(registry.paths) == 3
    assert "/subjects/item%2F1/versions/1" in registry.paths


def test_a_schema_without_a_sort_is_avro(registry: Registry) -> None:
    assert SchemaRegistry(registry.url).schema(registry.add("a", "{}")).sort == "AVRO"


def test_an_unknown_id_is_named_and_not_asked_for_again_for_a_while(registry: Registry) -> None:
    now = [100.0]
    client = SchemaRegistry(registry.url, clock=lambda: now[0])

    for _ in range(3):
        with pytest.raises(RecordError, match=r"schema id 7: the schema registry .* knows none such"):
            client.schema(7)
    assert len(registry.paths) == 1
    for _ in range(7):
        registry.add("later", "text")
    now[0] += UNKNOWN_S
    assert client.schema(7).text == "text"


@pytest.mark.parametrize("login", [("reader", "pa:ss"), "t0ken"])
def test_a_login_is_sent_and_a_refusal_stops(registry: Registry, login: tuple[str, str] | str) -> None:
    number = registry.add("a", "text")
    registry.login = login
    options = {"token": login} if isinstance(login, str) else {"user": login[0], "password": login[1]}

    assert SchemaRegistry(registry.url, **options).schema(number).text == "text"  # type: ignore[arg-type]
    with pytest.raises(SettingsError, match=r"HTTP 401; check \[registry.user\]"):
        SchemaRegistry(registry.url, user="reader", password="wrong").schema(number)


def test_a_registry_that_does_not_answer_is_waited_for_and_what_is_known_stays(registry: Registry) -> None:
    number = registry.add("a", "text")
    client = SchemaRegistry(registry.url)
    client.schema(number)
    registry.away = True

    assert client.schema(number).text == "text"
    with pytest.raises(RegistryUnavailable, match="HTTP 503"):
        client.schema(number + 1)
    with socket.socket() as taken:
        taken.bind(("127.0.0.1", 0))
        with pytest.raises(RegistryUnavailable, match="does not answer"):
            SchemaRegistry(f"http://127.0.0.1:{taken.getsockname()[1]}").schema(1)


@pytest.mark.parametrize("body", [b"<html>", b"[1]", b"[" * 100_000])
def test_an_answer_that_is_no_registrys_is_an_outage(registry: Registry, body: bytes) -> None:
    registry.answers["/schemas/ids/1"] = body

    with pytest.raises(RegistryUnavailable, match="no JSON object"):
        SchemaRegistry(registry.url).schema(1)


@pytest.mark.parametrize(
    "body",
    [b"{}", b'{"schema": 5}', b'{"schema": "x", "references": [{"name": "a"}]}', b'{"schema": "x", "references": [5]}'],
)
def test_an_answer_without_a_schema_costs_its_records_only(registry: Registry, body: bytes) -> None:
    registry.answers["/schemas/ids/1"] = body

    with pytest.raises(RecordError, match="schema id 1"):
        SchemaRegistry(registry.url).schema(1)


def test_references_that_go_round_end(registry: Registry) -> None:
    loop = b'{"schema": "x", "references": [{"name": "%d", "subject": "s", "version": %d}]}'
    registry.answers["/schemas/ids/1"] = loop % (0, 0)
    for version in range(50):
        registry.answers[f"/subjects/s/versions/{version}"] = loop % (version + 1, version + 1)

    with pytest.raises(RecordError, match="levels"):
        SchemaRegistry(registry.url).schema(1)


def test_a_file_of_authorities_that_is_none_is_named_by_its_setting() -> None:
    with pytest.raises(SettingsError, match=r"\[registry.ca_file\]"):
        SchemaRegistry("https://registry", ca_file="/nonexistent.pem")
