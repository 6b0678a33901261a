"""Options that are handed on to a client, with the secrets among them."""

from pathlib import Path
from typing import Any

from pydantic import SecretStr

from worker.settings.base import parse_object

_SECRET_WORDS = ("password", "secret", "token", "credential", "proxy")

# The worker's guarantees rest on these, so they are not options.
_SETTINGS = {"bootstrap_servers", "group_id"}
_SERIALIZERS = {f"{part}_{kind}" for part in ("key", "value") for kind in ("serializer", "deserializer")}
_RESERVED = {*_SETTINGS, *_SERIALIZERS, "enable_auto_commit", "acks", "enable_idempotence", "transactional_id"}


def is_secret(name: str) -> bool:
    """Whether an option of this name holds something that must not be shown."""
    return any(word in name.lower() for word in _SECRET_WORDS)


def parse_kafka_options(value: Any) -> Any:
    """Kafka client options from JSON text or a table; secrets become `SecretStr`, `{"file": PATH}` is read.

    ValueError where it is no JSON object, a reserved option, or a file that can't be read; it never names a value.
    """
    options = parse_object(value, '{"security_protocol": "SSL"}')
    for name in options.keys() & _RESERVED:
        source = f", from WORKER_KAFKA__{name.upper()}" if name in _SETTINGS else ""
        raise ValueError(f"option {name} is set by the worker{source}")
    return _guarded("", options)


def parse_store_options(value: Any) -> Any:
    """Options of an object store's client, in the same way; secrets may lie deeper in them."""
    return _guarded("", parse_object(value, '{"endpoint_url": "http://minio:9000"}'))


def _guarded(name: str, value: Any) -> Any:
    if isinstance(value, dict):
        if set(value) == {"file"} and name:
            return SecretStr(read_secret(name, str(value["file"])))
        return {below: _guarded(below, item) for below, item in value.items()}
    if is_secret(name) and isinstance(value, str | int | float):
        return SecretStr(str(value))
    return value


def read_secret(name: str, path: str) -> str:
    """A file's text without its last line end; ValueError, naming option and file, where it can't be read."""
    try:
        return Path(path).read_text(encoding="utf-8").rstrip("\r\n")
    except OSError as error:
        raise ValueError(f"{name}: can't read {path}: {error.strerror}") from None
    except UnicodeDecodeError:
        raise ValueError(f"{name}: {path} is not UTF-8 text") from None


def reveal(options: dict[str, Any]) -> dict[str, Any]:
    """Options with their secrets in clear text: never log the result."""
    return {
        name: reveal(value)
        if isinstance(value, dict)
        else value.get_secret_value()
        if isinstance(value, SecretStr)
        else value
        for name, value in options.items()
    }


def secrets_of(options: dict[str, Any]) -> list[str]:
    """Every secret among the options, for masking: never log the result."""
    secrets: list[str] = []
    for value in options.values():
        if isinstance(value, dict):
            secrets += secrets_of(value)
        elif isinstance(value, SecretStr):
            secrets.append(value.get_secret_value())
    return secrets
