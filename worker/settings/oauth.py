"""Settings of OAUTHBEARER, checked as a whole."""

from typing import Annotated, Self

from pydantic import BeforeValidator, SecretStr, model_validator

from worker.settings.base import Group, OptionalName, parse_object, parse_secret, setting

_TOKEN_SOURCES = ("token_file", "token_command", "token_endpoint")


class OauthSettings(Group):
    """Where the tokens of a broker come from that wants OAUTHBEARER: a file, a command, or a token endpoint."""

    token_file: OptionalName = setting(None, "file with a token, read again for each login")
    token_command: OptionalName = setting(
        None, "command, without a shell, that prints a token, or JSON with `access_token` and `expires_in`"
    )
    token_endpoint: OptionalName = setting(
        None, "URL of an OIDC token endpoint that gives tokens to a client by its id and secret"
    )
    client_id: OptionalName = setting(None, "the client's id at the token endpoint")
    client_secret: Annotated[SecretStr | None, BeforeValidator(parse_secret)] = setting(
        None, 'its secret; from a file: `{"file": "/run/secrets/client"}`', allowed="text"
    )
    scope: OptionalName = setting(None, "scope to ask the token endpoint for")
    ca_file: OptionalName = setting(
        None, "PEM file of the authorities that the token endpoint's certificate may be signed by; else the system's"
    )
    extensions: Annotated[
        dict[str, str], BeforeValidator(lambda value: parse_object(value, '{"logicalCluster": "x"}'))
    ] = setting({}, "extensions that are sent with each token", allowed="JSON object")

    @model_validator(mode="after")
    def _one_source(self) -> Self:
        named = [f"WORKER_OAUTH__{name.upper()}" for name in _TOKEN_SOURCES if getattr(self, name) is not None]
        if len(named) > 1:
            raise ValueError(f"{' and '.join(named)}: only one of them can give the tokens")
        if self.token_endpoint is None:
            return self
        if not self.token_endpoint.startswith(("https://", "http://")):
            raise ValueError(
                f"WORKER_OAUTH__TOKEN_ENDPOINT = {self.token_endpoint!r}: must be an https:// or http:// URL"
            )
        if self.client_id is None or self.client_secret is None:
            raise ValueError(
                "WORKER_OAUTH__TOKEN_ENDPOINT: needs WORKER_OAUTH__CLIENT_ID and WORKER_OAUTH__CLIENT_SECRET"
            )
        return self
