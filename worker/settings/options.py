"""Values that are more than a number or a word: lists, and client options with secrets in them."""

import json
from pathlib import Path
from typing import Any

from pydantic import SecretStr

_SECRET_WORDS = ("password", "secret", "token", "credential", "proxy")

# The worker's guarantees rest on these, so they are not options.
_RESERVED = {
    "bootstrap_servers": "WORKER_KAFKA__BOOTSTRAP_SERVERS",
    "group_id": "WORKER_KAFKA__GROUP_ID",
    "enable_auto_commit": None,
    "acks": None,
    "enable_idempotence": None,
    "transactional_id": None,
    "key_deserializer": None,
    "value_deserializer": None,
    "key_serializer": None,
    "value_serializer": None,
}


def is_secret(name: str) -> bool:
    """Whether an option of this name holds something that must not be shown."""
    return any(word in name.lower() for word in _SECRET_WORDS)


def parse_list(value: Any) -> Any:
    """`a,b` or a JSON array as a list; anything that is no text stays as it is."""
    if not isinstance(value, str):
        return value
    if value.lstrip().startswith("["):
        return json.loads(value)
    return [part.strip() for part in value.split(",") if part.strip()]


def parse_object(value: Any, example: str) -> dict[str, Any]:
    """A JSON object from its text, or a table as it is.

    Raises:
        ValueError: no JSON object.
    """
    if isinstance(value, str):
        try:
            value = json.loads(value)
        except json.JSONDecodeError as error:
            raise ValueError(f"is not valid JSON ({error.msg} at character {error.pos + 1})") from None
    if not isinstance(value, dict):
        raise ValueError(f"must be a JSON object such as {example}")  # noqa: TRY004 - pydantic takes ValueError
    return value


def parse_options(value: Any) -> Any:
    """Kafka client options from JSON text or a table; secrets become `SecretStr`, `{"file": PATH}` is read.

    Raises:
        ValueError: no JSON object, a reserved option, or a file that can't be read. Never names a value.
    """
    options = parse_object(value, '{"security_protocol": "SSL"}')
    for name in options.keys() & _RESERVED.keys():
        instead = _RESERVED[name]
        raise ValueError(f"option {name} is set by the worker" + (f", from {instead}" if instead else ""))
    return {name: _guarded(name, item) for name, item in options.items()}


def parse_store_options(value: Any) -> Any:
    """Options of an object store's client, in the same way; secrets may lie deeper in them."""
    return {
        name: _guarded(name, item)
        for name, item in parse_object(value, '{"endpoint_url": "http://minio:9000"}').items()
    }


def _guarded(name: str, value: Any) -> Any:
    if isinstance(value, dict):
        if set(value) == {"file"}:
            return SecretStr(read_secret(name, str(value["file"])))
        return {below: _guarded(below, item) for below, item in value.items()}
    if is_secret(name) and isinstance(value, str | int | float):
        return SecretStr(str(value))
    return value


def read_secret(name: str, path: str) -> str:
    """A file's text without its last line end.

    Raises:
        ValueError: names the option and the file.
    """
    try:
        return Path(path).read_text(encoding="utf-8").rstrip("\r\n")
    except OSError as error:
        raise ValueError(f"{name}: can't read {path}: {error.strerror}") from None
    except UnicodeDecodeError:
        raise ValueError(f"{name}: {path} is not UTF-8 text") from None


def reveal(options: dict[str, Any]) -> dict[str, Any]:
    """The options with their secrets in clear text."""
    return {name: _revealed(value) for name, value in options.items()}


def _revealed(value: Any) -> Any:
    if isinstance(value, dict):
        return reveal(value)
    return value.get_secret_value() if isinstance(value, SecretStr) else value


def secrets_of(options: dict[str, Any]) -> list[str]:
    """Every secret among the options, for masking: never log the result."""
    found: list[str] = []
    for value in options.values():
        if isinstance(value, dict):
            found += secrets_of(value)
        elif isinstance(value, SecretStr):
            found.append(value.get_secret_value())
    return found
