"""Settings from, strongest first: the environment, `.env`, secret files, the TOML file, the defaults.

`WORKER_CONFIG_FILE` names the TOML file. `WORKER_SECRETS_DIR` names a directory whose files are called like the
variables (`WORKER_KAFKA__OPTIONS__SASL_PLAIN_PASSWORD`, any case) and hold one value each, as container platforms
mount them. The sources of pydantic-settings read and merge; here is what they don't do: unknown names, and problems in
one line each.
"""

import json
import os
import re
import tomllib
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any, Literal, get_args, get_origin

from pydantic import BaseModel, SecretStr, ValidationError
from pydantic.fields import FieldInfo
from pydantic_settings import (
    DotEnvSettingsSource,
    EnvSettingsSource,
    InitSettingsSource,
    PydanticBaseSettingsSource,
    TomlConfigSettingsSource,
)

from worker.errors import SettingsError
from worker.settings.base import Allowed, is_optional, is_secret, masked_text, read_secret
from worker.settings.tree import PREFIX, Settings
from worker.texts import nearest

CONFIG_FILE = "WORKER_CONFIG_FILE"
SECRETS_DIR = "WORKER_SECRETS_DIR"
MASK = "********"
_NOT_SETTINGS = {CONFIG_FILE, SECRETS_DIR, "WORKER_TEST_DATA"}
_KAFKA_OPTIONS = "WORKER_KAFKA__OPTIONS"
_OPTION = f"{_KAFKA_OPTIONS}__"
# Kubernetes announces a service called "worker" or "worker-…" to every container in this form.
_SERVICE_LINK = re.compile(r"_SERVICE_(HOST|PORT)|_PORT_\d+_(TCP|UDP)")


def load_settings(environ: Mapping[str, str] | None = None, *, dotenv: str | Path = ".env") -> Settings:
    """The settings of this process.

    environ   variables to read instead of the process's own
    dotenv    file of `NAME=value` lines; it may be missing

    Raises SettingsError with one line per problem, each naming the setting, its value (a secret's is masked) and the
    allowed range. Unknown names are problems too.
    """
    environ = os.environ if environ is None else environ
    try:
        variables = {name.upper(): text for name, text in DotEnvSettingsSource(Settings, dotenv).env_vars.items()}
    except (OSError, UnicodeDecodeError) as error:
        raise SettingsError(f"can't read {dotenv}: {error}") from None
    variables |= {name.upper(): text for name, text in environ.items()}
    variables = _secret_files(variables.get(SECRETS_DIR)) | variables
    # An empty variable hides a weaker source's: so an operator gets the default back. Where the default is a name, and
    # empty says that there is none, that is what it says.
    may_be_empty = {name for name, _, field in leaves() if field.default is not None and is_optional(field)}
    texts = {
        name: text or ""
        for name, text in variables.items()
        if name.startswith(PREFIX) and (text or name in may_be_empty)
    }
    config = texts.get(CONFIG_FILE, "").strip()
    problems = list(_unknown(texts))
    if problems:
        raise SettingsError("\n".join(problems))
    try:
        return Settings.model_validate({"sources": (_kafka_options(texts), _environment(texts), _toml(config))})
    except ValidationError as error:
        raise SettingsError("\n".join(_lines(error, texts, config))) from None


def _secret_files(directory: str | None) -> dict[str, str | None]:
    # The library's own source neither knows the names of groups' settings nor keeps the blanks of a password.
    if not directory:
        return {}
    folder = Path(directory)
    if not folder.is_dir():
        raise SettingsError(f"{SECRETS_DIR} = {directory!r}: no such directory")
    files = (path for path in folder.iterdir() if path.is_file() and path.name.upper().startswith(PREFIX))
    try:
        return {path.name.upper(): read_secret(path.name, str(path)) for path in sorted(files)}
    except ValueError as error:
        raise SettingsError(str(error)) from None


def _environment(variables: Mapping[str, str]) -> EnvSettingsSource:
    source = EnvSettingsSource(Settings)
    names = {name: PREFIX + path.replace(".", "__") for name, path, _ in leaves() if name != _KAFKA_OPTIONS}
    source.env_vars = {names[name]: text for name, text in variables.items() if name in names}
    return source


def _kafka_options(variables: Mapping[str, str]) -> PydanticBaseSettingsSource:
    """The object, with the options that have variables of their own over it: a password often comes from a file."""

    def parse(name: str, text: str) -> Any:
        # A secret is a text even if it looks like a number. Broken JSON stays as it is: validation says so.
        try:
            return text if is_secret(name) else json.loads(text)
        except json.JSONDecodeError:
            return text

    single = {
        name.removeprefix(_OPTION).lower(): parse(name, text)
        for name, text in variables.items()
        if name.startswith(_OPTION)
    }
    if not single and _KAFKA_OPTIONS not in variables:
        return InitSettingsSource(Settings, {})
    options = parse(_KAFKA_OPTIONS, variables.get(_KAFKA_OPTIONS, "{}"))
    options = {**options, **single} if isinstance(options, dict) else options
    return InitSettingsSource(Settings, {"kafka": {"options": options}})


def _toml(path: str) -> TomlConfigSettingsSource:
    try:
        if path:
            Path(path).open("rb").close()  # to the library, what is missing or no file would be an empty one
        return TomlConfigSettingsSource(Settings, path or None)
    except OSError as error:
        raise SettingsError(f"{CONFIG_FILE} = {path!r}: {error.strerror}") from None
    except (tomllib.TOMLDecodeError, UnicodeDecodeError) as error:
        raise SettingsError(f"{CONFIG_FILE} = {path!r}: not valid TOML: {error}") from None


def _unknown(variables: Mapping[str, str]) -> Iterator[str]:
    known = [*(name for name, _, _ in leaves()), *_NOT_SETTINGS]
    for name, text in sorted(variables.items()):
        if name in known or name.startswith(_OPTION) or _SERVICE_LINK.search(name):
            continue
        if name.endswith("_PORT") and text.startswith(("tcp://", "udp://")):
            continue
        yield f"unknown setting {name}: {_nearest(name, known)}"


def _nearest(name: str, known: list[str]) -> str:
    return f"the nearest valid name is {nearest(name, known, min_likeness=0.0)}"


def _lines(error: ValidationError, variables: Mapping[str, str], config: str) -> Iterator[str]:
    """One line per problem."""
    fields = {name: field for name, _, field in leaves()}
    for problem in error.errors(include_url=False):
        path, kind, message = [str(part) for part in problem["loc"]], problem["type"], problem["msg"]
        message = message.removeprefix("Value error, ")
        name = PREFIX + "__".join(path[:2]).upper()
        name = name if name in fields or not path else PREFIX + path[0].upper()
        origin = "" if name in variables or not config else f" (in {config}: {'.'.join(path)})"
        if kind == "extra_forbidden":
            near = _nearest(PREFIX + "__".join(path).upper(), [*fields])
            yield f"unknown setting {'.'.join(path)} in {config}: {near}"
        elif name in fields:
            whole = "a whole number, " if kind.startswith("int_") else ""
            reason = message if kind == "value_error" else f"allowed is {whole}{allowed(fields[name])}"
            yield f"{name} = {shown(name, variables.get(name, problem['input']))}: {reason}{origin}"
        elif kind in {"model_type", "model_attributes_type"}:
            yield f"{name}__…: must be a table of settings{origin}"
        else:
            yield message + origin  # of a group: it names its settings


def leaves(tree: type[BaseModel] = Settings, prefix: str = PREFIX) -> Iterator[tuple[str, str, FieldInfo]]:
    """Every setting below `tree`: (variable, dotted path in TOML, field)."""
    for name, field in tree.model_fields.items():
        variable = f"{prefix}{name.upper()}"
        if isinstance(field.annotation, type) and issubclass(field.annotation, BaseModel):
            for below, path, leaf in leaves(field.annotation, f"{variable}__"):
                yield below, f"{name}.{path}", leaf
        else:
            yield variable, name, field


def variable_of(path: str) -> str | None:
    """The environment variable of a setting's path, such as model.hidden; None where there is no such setting."""
    return next((name for name, known, _ in leaves() if known == path), None)


def allowed(field: FieldInfo) -> str:
    """The range of a setting in words."""
    if isinstance(field.json_schema_extra, dict):
        return str(field.json_schema_extra["allowed"])
    if get_origin(field.annotation) is Literal:
        *first, last = map(str, get_args(field.annotation))
        return f"{', '.join(first)} or {last}"
    validators = (getattr(rule, "func", None) for rule in field.metadata)
    return next((str(validator) for validator in validators if isinstance(validator, Allowed)), "text")


def shown(name: str, value: Any) -> str:
    """A value for an error message or a log: secrets and passwords in URLs are masked."""
    may_hold_secrets = "OPTIONS" in name.upper() and "MODEL__OPTIONS" not in name.upper()
    if is_secret(name) or may_hold_secrets or isinstance(value, SecretStr):
        return MASK
    text = masked_text(repr(value) if isinstance(value, str) else str(value), MASK)
    return text if len(text) <= 200 else f"{text[:200]}…"


def debug_and_secrets() -> tuple[bool, list[str]]:
    """Whether tracebacks are to be shown, and what is to be masked in them; also where the settings are broken."""
    try:
        settings = load_settings()
    except SettingsError:
        return os.environ.get("WORKER_LOG__LEVEL", "").lower() == "debug", []
    return settings.log.level == "debug", settings.secrets()
