"""Settings of the schema registry, checked as a whole."""

from typing import Annotated, Self

from pydantic import BeforeValidator, SecretStr, model_validator

from worker.settings.base import Group, OptionalName, parse_secret, setting


class RegistrySettings(Group):
    """Where the schemas of the formats `avro`, `protobuf` and `json-schema` are looked up."""

    url: OptionalName = setting(None, "URL of a registry that speaks Confluent's protocol, with its path")
    user: OptionalName = setting(None, "user, or the key of an API, for HTTP Basic authentication; empty: none")
    password: Annotated[SecretStr | None, BeforeValidator(parse_secret)] = setting(
        None, 'its password, or the secret of an API; from a file: `{"file": "/run/secrets/registry"}`', allowed="text"
    )
    token: Annotated[SecretStr | None, BeforeValidator(parse_secret)] = setting(
        None, "bearer token instead of a user; from a file in the same way", allowed="text"
    )
    ca_file: OptionalName = setting(
        None, "PEM file of the authorities that the registry's certificate may be signed by; else the system's"
    )

    @model_validator(mode="after")
    def _usable(self) -> Self:
        if self.url is not None and not self.url.startswith(("https://", "http://")):
            raise ValueError(f"WORKER_REGISTRY__URL = {self.url!r}: must be an https:// or http:// URL")
        if self.url is not None and "@" in self.url:
            raise ValueError(
                "WORKER_REGISTRY__URL holds a user: set WORKER_REGISTRY__USER and WORKER_REGISTRY__PASSWORD instead"
            )
        if self.user is not None and self.token is not None:
            raise ValueError("WORKER_REGISTRY__USER and WORKER_REGISTRY__TOKEN: only one of them can be sent")
        return self
