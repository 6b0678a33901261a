"""What the settings tree is made of: groups, ranges that registries know, values from text, secrets of options."""

import json
import re
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from importlib import import_module
from pathlib import Path
from typing import Annotated, Any

from pydantic import AfterValidator, BaseModel, BeforeValidator, ConfigDict, Field, SecretStr, StringConstraints
from pydantic.fields import FieldInfo
from pydantic_core import PydanticCustomError

from worker.broker.options import RESERVED

Name = Annotated[str, StringConstraints(min_length=1, max_length=255)]

_SECRET_WORDS = (
    *("password", "passwd", "passphrase", "pwd", "secret", "token", "credential", "proxy", "jaas", "private", "bearer"),
    *("authorization", "signature", "apikey", "api_key", "access_key", "accesskey", "account_key"),
)
MIN_ACCESS_KEY = 16  # characters of an object store's access key; a shorter one is a plain user name
_PATHS = (
    "file",
    "path",
    "dir",
    "url",
    "uri",
    "endpoint",
    "mechanism",
    "timeout",
    "_ms",
    "_s",
)  # ends of harmless names
_IN_URL = re.compile(r"://([^\s/@]*@|\S*:\S*@)")
_IN_TEXT = re.compile(
    r"""(?i)([\w.-]*(?:password|passwd|secret|token|jaas|api_?key|access_?key)[\w.-]*\s*[=:]\s*)
                          ("[^"]*"|'[^']*'|[^\s;,&"']+)""",
    re.VERBOSE,
)


class Group(BaseModel):
    """A branch of the tree: frozen, and a name that it doesn't know is an error."""

    model_config = ConfigDict(frozen=True, extra="forbid", str_strip_whitespace=True, allow_inf_nan=False)


def setting(
    default: Any,
    description: str,
    *,
    within: tuple[float, float] | None = None,
    gt: float | None = None,
    lt: float | None = None,
    le: float | None = None,
    allowed: str | None = None,
) -> Any:
    """One setting.

    default       works without anything else being set
    description   one line of help, in Markdown
    within        of a number: its bounds, both allowed; gt, lt, le: where one of them isn't
    allowed       its range in words, where type, bounds and validators don't tell
    """
    ge, le = within or (None, le)
    if ge is not None or gt is not None:
        low = f"{ge:.10g}" if ge is not None else f"above {gt:.10g}"
        allowed = f"{low} to {le:.10g}" if le is not None else f"{low} and below {lt:.10g}"
    extra: Any = None if allowed is None else {"allowed": allowed}
    return Field(default=default, description=description, ge=ge, gt=gt, lt=lt, le=le, json_schema_extra=extra)


class Allowed:
    """A validator for values that a registry or a range knows.

    read   returns them: `value in …` tells, and their text follows "allowed is". It is called when a value is set and
           when the range is shown, so that reading the settings does not import torch and what else they need
    """

    def __init__(self, read: Callable[[], Any]) -> None:
        self._read = read

    def __call__(self, value: Any) -> Any:
        """The value, where it is one of them or not set."""
        if value is not None and value not in self._read():
            raise PydanticCustomError("not_allowed", "is not allowed")
        return value

    def __str__(self) -> str:
        return str(self._read())


def registered(module: str, registry: str) -> AfterValidator:
    """The names of a registry, such as POLICIES of worker.thresholds.factory."""
    return AfterValidator(Allowed(lambda: getattr(import_module(module), registry)))


def model_range(option: str) -> AfterValidator:
    """The range that the model's room has for one of its options."""
    return AfterValidator(Allowed(lambda: import_module("worker.model.presets").RANGES[option]))


@dataclass(frozen=True, slots=True)
class _Text:
    pattern: str
    words: str

    def __contains__(self, value: Any) -> bool:
        return isinstance(value, str) and re.fullmatch(self.pattern, value) is not None

    def __str__(self) -> str:
        return self.words


def matching(pattern: str, words: str) -> AfterValidator:
    """Texts that match a pattern as a whole; words: the same for people."""
    return AfterValidator(Allowed(lambda: _Text(pattern, words)))


def empty_is_none(value: Any) -> Any:
    """An empty text switches off what it would name."""
    return None if value == "" else value


def is_optional(field: FieldInfo) -> bool:
    """Whether an empty text switches a setting off."""
    return any(getattr(rule, "func", None) is empty_is_none for rule in field.metadata)


OptionalName = Annotated[Name | None, BeforeValidator(empty_is_none)]


def parse_list(value: Any) -> Any:
    """`a,b` or a JSON array as a list; anything that is no text stays as it is."""
    if not isinstance(value, str):
        return value
    if value.lstrip().startswith("["):
        return json.loads(value)
    return [part.strip() for part in value.split(",") if part.strip()]


def parse_object(value: Any, example: str) -> dict[str, Any]:
    """A JSON object from its text, or a table as it is; ValueError for anything else."""
    if isinstance(value, str):
        try:
            value = json.loads(value)
        except json.JSONDecodeError as error:
            raise ValueError(f"is not valid JSON ({error.msg} at character {error.pos + 1})") from None
    if not isinstance(value, dict):
        raise ValueError(f"must be a JSON object such as {example}")  # noqa: TRY004 - pydantic takes ValueError
    return value


def parse_secret(value: Any) -> Any:
    """A secret from its text, or from the file that `{"file": PATH}` names, as a table or as JSON; empty = not set.

    ValueError where the file can't be read; it never names a value.
    """
    if isinstance(value, str) and re.fullmatch(r'\s*\{\s*"file".*\}\s*', value):
        value = parse_object(value, '{"file": "/run/secrets/client"}')
    if isinstance(value, dict):
        return _guarded("secret", value)
    return empty_is_none(value)


def is_secret(name: str) -> bool:
    """Whether an option of this name holds something that must not be shown.

    >>> [is_secret(name) for name in ("sasl_plain_password", "client_secret", "ssl_keyfile", "token_file")]
    [True, True, False, False]
    """
    name = name.lower()
    return any(word in name for word in _SECRET_WORDS) and not name.endswith(_PATHS)


def secrets_in(text: str) -> list[str]:
    """The secrets in a text that is none itself: of URLs, and of pairs such as `password="…"`."""
    in_urls = [user.rstrip("@").partition(":")[2] or user.rstrip("@") for user in _IN_URL.findall(text)]
    in_pairs = [value.strip("\"'") for _, value in _IN_TEXT.findall(text)]
    return [secret for secret in (*in_urls, *in_pairs) if secret]


def masked_text(text: str, mask: str) -> str:
    """The text with a mask in place of its secrets."""
    return _IN_TEXT.sub(lambda match: match[1] + mask, _IN_URL.sub(f"://{mask}@", text))


def parse_kafka_options(value: Any) -> Any:
    """Kafka client options from JSON text or a table; secrets become `SecretStr`, `{"file": PATH}` is read.

    ValueError where it is no JSON object, a reserved option, or a file that can't be read; it never names a value.
    """
    options = parse_object(value, '{"security_protocol": "SSL"}')
    for name in options.keys() & RESERVED.keys():
        raise ValueError(f"option {name} is set by the worker: {RESERVED[name]}")
    return _guarded("", options)


def parse_store_options(value: Any) -> Any:
    """Options of an object store's client, in the same way; secrets may lie deeper in them."""
    return _guarded("", parse_object(value, '{"endpoint_url": "http://minio:9000"}'))


def _guarded(name: str, value: Any) -> Any:
    if isinstance(value, dict):
        if set(value) == {"file"} and name:
            path = str(value["file"])
            return path if name.endswith("file") else SecretStr(read_secret(name, path))  # the client reads its own
        return {below: _guarded(below, item) for below, item in value.items()}
    if isinstance(value, list):
        return [_guarded(name, item) for item in value]
    is_access_key = name == "key" and len(str(value)) >= MIN_ACCESS_KEY
    is_pasted_key = isinstance(value, str) and "PRIVATE KEY-----" in value
    if is_pasted_key or ((is_secret(name) or is_access_key) and isinstance(value, str | int | float)):
        return SecretStr(str(value))
    return value


def read_secret(name: str, path: str) -> str:
    """A file's text without its last line end; ValueError, naming option and file, where it can't be read."""
    # Only the line end goes, which editors add: a password may begin or end with a blank.
    try:
        return Path(path).read_text(encoding="utf-8").rstrip("\r\n")
    except OSError as error:
        raise ValueError(f"{name}: can't read {path}: {error.strerror}") from None
    except UnicodeDecodeError:
        raise ValueError(f"{name}: {path} is not UTF-8 text") from None


def reveal(options: dict[str, Any]) -> dict[str, Any]:
    """Options with their secrets, however deep, in clear text: never log the result."""
    return {name: _revealed(item) for name, item in options.items()}


def _revealed(value: Any) -> Any:
    if isinstance(value, dict):
        return reveal(value)
    if isinstance(value, list):
        return [_revealed(item) for item in value]
    return value.get_secret_value() if isinstance(value, SecretStr) else value


def secrets_of(tree: Any) -> list[str]:
    """Every secret in a tree of settings or options, for masking: never log the result."""
    if isinstance(tree, BaseModel):
        tree = {name: getattr(tree, name) for name in type(tree).model_fields}
    if isinstance(tree, Mapping):
        tree = list(tree.values())
    if isinstance(tree, list | tuple):
        return [secret for value in tree for secret in secrets_of(value)]
    if isinstance(tree, SecretStr):
        return [tree.get_secret_value(), *secrets_in(tree.get_secret_value())]
    return secrets_in(tree) if isinstance(tree, str) else []
