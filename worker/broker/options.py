"""Which of the Kafka client's options can be set, and to what: found out without a broker, as far as that goes.

Importing this does not import the client, so that reading the settings stays quick.
"""

from collections.abc import Mapping
from pathlib import Path
from typing import Any, Final

from worker.errors import SettingsError
from worker.texts import did_you_mean

_OBJECT: Final = "it takes a Python object"

# Options that are settings of their own, that the delivery guarantees rest on, or that no text can stand for.
RESERVED: Final[Mapping[str, str]] = {
    "bootstrap_servers": "use [kafka.bootstrap_servers]",
    "group_id": "use [kafka.group_id]",
    "group_instance_id": "use [instance_id]",
    "partition_assignment_strategy": "use [kafka.assignor]",
    "transactional_id": "use [delivery]",
    "auto_offset_reset": "use [kafka.start_from] and [kafka.offset_out_of_range]",
    "enable_auto_commit": "offsets are committed after the results are acknowledged",
    "enable_idempotence": "a retry must not repeat a result",
    "acks": "every in-sync replica has to acknowledge",
    "sasl_oauth_token_provider": "use [oauth.token_file], [oauth.token_command] or [oauth.token_endpoint]",
    **dict.fromkeys(("kafka_client", "key_deserializer", "value_deserializer"), "the worker sets it"),
    **dict.fromkeys(("key_serializer", "value_serializer"), "the worker sets it"),
    **dict.fromkeys(("selector", "ssl_context", "partitioner", "default_offset_commit_callback"), _OBJECT),
    "metric_reporters": _OBJECT,
}
_FILES: Final = ("ssl_cafile", "ssl_certfile", "ssl_keyfile", "ssl_crlfile")
_CHOICES: Final[Mapping[str, tuple[str, ...]]] = {
    "security_protocol": ("PLAINTEXT", "SSL", "SASL_PLAINTEXT", "SASL_SSL"),
    "sasl_mechanism": ("PLAIN", "SCRAM-SHA-256", "SCRAM-SHA-512", "OAUTHBEARER", "GSSAPI", "AWS_MSK_IAM"),
    "compression_type": ("gzip", "snappy", "lz4", "zstd"),
    "isolation_level": ("read_committed", "read_uncommitted"),
}
_PASSWORD_MECHANISMS: Final = ("PLAIN", "SCRAM-SHA-256", "SCRAM-SHA-512")


def require_options(options: Mapping[str, Any], *, with_token: bool) -> None:
    """Raises SettingsError for an option that no client knows, that can't be set, or of the wrong type or value.

    with_token   there is a provider of tokens for OAUTHBEARER
    """
    import kafka

    clients = (kafka.KafkaConsumer, kafka.KafkaProducer, kafka.KafkaAdminClient)
    defaults = {name: default for client in clients for name, default in client.DEFAULT_CONFIG.items()}
    for name, value in options.items():
        if name in RESERVED:
            raise SettingsError(f"[kafka.options]: {name} can't be set here: {RESERVED[name]}")
        if name not in defaults:
            raise SettingsError(f"[kafka.options]: no Kafka client knows {name!r}{did_you_mean(name, defaults)}")
        if not _is_of_type(value, default := defaults[name]):
            raise SettingsError(f"[kafka.options]: {name}={value!r} must be of type {type(default).__name__}")
        if name in _FILES and not Path(str(value)).is_file():
            raise SettingsError(f"[kafka.options]: {name}={value!r} is not a file")
        if value is not None and value not in _CHOICES.get(name, (value,)):
            raise SettingsError(f"[kafka.options]: {name}={value!r}: allowed is {', '.join(_CHOICES[name])}")
    _require_login(options, with_token=with_token)


def _require_login(options: Mapping[str, Any], *, with_token: bool) -> None:
    protocol, mechanism = options.get("security_protocol", "PLAINTEXT"), options.get("sasl_mechanism")
    needs: str | None = None
    if protocol.startswith("SASL") and mechanism is None:
        needs = f"security_protocol={protocol} needs sasl_mechanism: {', '.join(_CHOICES['sasl_mechanism'])}"
    elif mechanism is not None and not protocol.startswith("SASL"):
        needs = f"sasl_mechanism={mechanism} needs security_protocol SASL_SSL or SASL_PLAINTEXT, not {protocol}"
    elif mechanism in _PASSWORD_MECHANISMS and not (
        options.get("sasl_plain_username") and options.get("sasl_plain_password")
    ):
        needs = f"sasl_mechanism={mechanism} needs sasl_plain_username and sasl_plain_password"
    elif mechanism == "OAUTHBEARER" and not with_token:
        needs = "sasl_mechanism=OAUTHBEARER needs [oauth.token_file], [oauth.token_command] or [oauth.token_endpoint]"
    elif with_token and mechanism != "OAUTHBEARER":
        needs = "a token needs sasl_mechanism=OAUTHBEARER and security_protocol SASL_SSL or SASL_PLAINTEXT"
    if needs is not None:
        raise SettingsError(f"[kafka.options]: {needs}")


def _is_of_type(value: Any, default: Any) -> bool:
    if isinstance(default, bool):
        return isinstance(value, bool)
    if isinstance(default, int | float):
        return isinstance(value, int | float) and not isinstance(value, bool)
    return isinstance(value, str) or not isinstance(default, str)
