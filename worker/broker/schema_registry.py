"""The schemas of records, asked of a registry that speaks Confluent's protocol, each once."""

import base64
import json
import ssl
import threading
import time
import urllib.error
import urllib.parse
import urllib.request
from collections.abc import Callable
from typing import Any, Final

from typing_extensions import override

from worker.broker.tokens import web_opener
from worker.errors import ErrorCode, RecordError, RegistryUnavailable, SettingsError
from worker.formats.base import Schemas, WriterSchema
from worker.texts import quoted

TIMEOUT_S = 10.0
MAX_BYTES = 4 << 20  # of one answer
MAX_SCHEMAS = 1_000
MAX_REFERENCES, MAX_LEVELS = 200, 20  # of one schema
UNKNOWN_S = 30.0  # for which an id that the registry did not know is not asked for again
MAX_UNKNOWN = 10_000
NOT_NOW: Final = frozenset({408, 425, 429})
REFUSED: Final = frozenset({401, 403})


class SchemaRegistry(Schemas):
    """A client. A schema never changes once it has an id, so what was asked once is kept.

    url             of the registry, with a path where it has one
    user, password  for HTTP Basic authentication; None = without
    token           sent as a bearer token instead; None = without
    ca_file         authorities of its certificate; None = the system's
    clock           seconds, monotonic
    """

    def __init__(
        self,
        url: str,
        *,
        user: str | None = None,
        password: str = "",
        token: str | None = None,
        ca_file: str | None = None,
        clock: Callable[[], float] = time.monotonic,
    ) -> None:
        self._url = url.rstrip("/")
        self._headers = {"Accept": "application/vnd.schemaregistry.v1+json, application/json"}
        if token is not None:
            self._headers["Authorization"] = f"Bearer {token}"
        elif user is not None:
            self._headers["Authorization"] = "Basic " + base64.b64encode(f"{user}:{password}".encode()).decode()
        self._opener = web_opener(ca_file, "[registry.ca_file]")
        self._clock = clock
        self._lock = threading.Lock()
        self._schemas: dict[int, WriterSchema] = {}
        self._unknown: dict[int, tuple[float, RecordError]] = {}

    @override
    def schema(self, schema_id: int) -> WriterSchema:
        with self._lock:
            if (schema := self._schemas.get(schema_id)) is not None:
                return schema
            until, error = self._unknown.get(schema_id, (0.0, None))
            if error is not None and self._clock() < until:
                raise error
            try:
                schema = self._fetch(schema_id)
            except RecordError as error:
                if len(self._unknown) >= MAX_UNKNOWN:
                    self._unknown.clear()
                self._unknown[schema_id] = self._clock() + UNKNOWN_S, error
                raise
            if len(self._schemas) >= MAX_SCHEMAS:
                self._schemas.pop(next(iter(self._schemas)))
            self._schemas[schema_id] = schema
            return schema

    def probe(self) -> str:
        """Asks whether it is there and lets this user in: what it answers. RegistryUnavailable, SettingsError."""
        try:
            self._content("/schemas/types", "the sorts of schemas")
        except RecordError as error:  # not all registries have this page
            return error.detail
        return f"{self._url} answers"

    def _fetch(self, schema_id: int) -> WriterSchema:
        what = f"schema id {schema_id}"
        answer = self._get(f"/schemas/ids/{schema_id}", what)
        references: dict[str, str] = {}
        self._add_references(answer, references, what, 0)
        return WriterSchema(str(answer.get("schemaType") or "AVRO").upper(), _text(answer, what), references)

    def _add_references(self, answer: dict[str, Any], texts: dict[str, str], what: str, level: int) -> None:
        """Those that a reference needs come before it."""
        if level > MAX_LEVELS:
            raise _unknown(f"{what}: its references go on over more than {MAX_LEVELS} levels")
        references = answer.get("references") or []
        for reference in references if isinstance(references, list) else []:
            try:
                name, subject, version = str(reference["name"]), str(reference["subject"]), int(reference["version"])
            except (LookupError, TypeError, ValueError):
                raise _unknown(f"{what}: the registry names a reference that is none") from None
            if name in texts:
                continue
            if len(texts) >= MAX_REFERENCES:
                raise _unknown(f"{what}: it has more than {MAX_REFERENCES} references")
            path = f"/subjects/{urllib.parse.quote(subject, safe='')}/versions/{version}"
            below = self._get(path, f"{what}, reference {quoted(name)}")
            self._add_references(below, texts, what, level + 1)
            texts[name] = _text(below, what)

    def _get(self, path: str, what: str) -> dict[str, Any]:
        content = self._content(path, what)
        try:
            answer = json.loads(content) if len(content) <= MAX_BYTES else None
        except (ValueError, RecursionError):
            answer = None
        if not isinstance(answer, dict):
            # A proxy's page, say: it passes, and the topic must not be lost meanwhile.
            raise RegistryUnavailable(f"the schema registry {self._url}: no JSON object in the answer for {what}")
        return answer

    def _content(self, path: str, what: str) -> bytes:
        source = f"the schema registry {self._url}"
        request = urllib.request.Request(self._url + path, headers=self._headers)  # noqa: S310  # checked
        try:
            with self._opener.open(request, timeout=TIMEOUT_S) as response:
                content: bytes = response.read(MAX_BYTES + 1)
        except urllib.error.HTTPError as error:
            error.close()
            if error.code in REFUSED:
                words = "check [registry.user], [registry.password] or [registry.token]"
                raise SettingsError(f"{source} refuses: HTTP {error.code}; {words}") from None
            if error.code >= 500 or error.code in NOT_NOW:
                raise RegistryUnavailable(f"{source} can't answer: HTTP {error.code}") from None
            if error.code == 404:
                raise _unknown(f"{what}: {source} knows none such") from None
            raise _unknown(f"{what}: {source} answers HTTP {error.code}") from None
        except (OSError, ValueError) as error:  # urllib's own errors are of these kinds, too
            cause = getattr(error, "reason", error)
            if isinstance(cause, ssl.SSLCertVerificationError):
                words = f"its certificate is refused: {cause.verify_message}; check [registry.ca_file]"
                raise SettingsError(f"{source}: {words}") from None
            raise RegistryUnavailable(f"{source} does not answer: {cause}") from None
        return content


def _text(answer: dict[str, Any], what: str) -> str:
    text = answer.get("schema")
    if not isinstance(text, str):
        raise _unknown(f"{what}: the registry's answer holds no schema")
    return text


def _unknown(detail: str) -> RecordError:
    return RecordError(ErrorCode.UNKNOWN_SCHEMA, detail)
