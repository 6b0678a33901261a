"""Settings from, strongest first: the environment, `.env`, secret files, the TOML file, the defaults.

`WORKER_CONFIG_FILE` names the TOML file. `WORKER_SECRETS_DIR` names a directory whose files are called like the
variables (`WORKER_KAFKA__OPTIONS__SASL_PLAIN_PASSWORD`, any case) and hold one value each, as container platforms
mount them.
"""

import json
import os
import re
import tomllib
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any

from dotenv import dotenv_values
from pydantic import ValidationError
from pydantic.fields import FieldInfo
from pydantic_settings import EnvSettingsSource

from worker.errors import SettingsError
from worker.settings.options import is_secret, read_secret
from worker.settings.ranges import allowed, leaves, shown
from worker.settings.tree import PREFIX, Settings
from worker.texts import nearest

CONFIG_FILE = "WORKER_CONFIG_FILE"
SECRETS_DIR = "WORKER_SECRETS_DIR"
_NOT_SETTINGS = {CONFIG_FILE, SECRETS_DIR, "WORKER_TEST_DATA"}
_OPTION = "WORKER_KAFKA__OPTIONS__"
# Kubernetes announces a service called "worker" or "worker-…" to every container in this form.
_SERVICE_LINK = re.compile(r"_SERVICE_(HOST|PORT)|_PORT_\d+_(TCP|UDP)")


def load_settings(environ: Mapping[str, str] | None = None, *, dotenv: str | Path = ".env") -> Settings:
    """The settings of this process.

    Args:
        environ: variables to read instead of the process's own.
        dotenv: file of `NAME=value` lines; it may be missing.

    Raises:
        SettingsError: one line per problem, each naming the setting, its value (a secret's is masked) and the
            allowed range. Unknown names are problems too.
    """
    environ = os.environ if environ is None else environ
    named = {name.upper(): value for name, value in environ.items()}
    variables = {**_dotenv(Path(dotenv)), **named}
    secrets = _secret_files(variables.get(SECRETS_DIR, ""))
    variables = {name: text for name, text in {**secrets, **variables}.items() if _is_ours(name, text)}
    config = variables.get(CONFIG_FILE, "").strip()
    problems = list(_unknown(variables))
    if problems:
        raise SettingsError("\n".join(problems))

    tree = _merged(_toml(config), _from_variables(variables))
    try:
        return Settings(**tree)
    except ValidationError as error:
        raise SettingsError("\n".join(_lines(error, variables, config))) from None


def variable_names() -> list[str]:
    """Every setting's environment variable."""
    return [name for name, _, _ in leaves(Settings)]


def variable_of(path: str) -> str | None:
    """The environment variable of a setting's path, such as model.hidden; None where there is no such setting."""
    return next((name for name, known, _ in leaves(Settings) if known == path), None)


def _is_ours(name: str, text: str) -> bool:
    return name.startswith(PREFIX) and text != ""


def _dotenv(path: Path) -> dict[str, str]:
    if not path.is_file():
        return {}
    try:
        found = dotenv_values(path, encoding="utf-8")
    except (OSError, UnicodeDecodeError) as error:
        raise SettingsError(f"can't read {path}: {error}") from None
    return {name.upper(): value for name, value in found.items() if value is not None}


def _secret_files(directory: str) -> dict[str, str]:
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


def _toml(path: str) -> dict[str, Any]:
    if not path:
        return {}
    try:
        return tomllib.loads(Path(path).read_text(encoding="utf-8"))
    except OSError as error:
        raise SettingsError(f"{CONFIG_FILE} = {path!r}: {error.strerror}") from None
    except (tomllib.TOMLDecodeError, UnicodeDecodeError) as error:
        raise SettingsError(f"{CONFIG_FILE} = {path!r}: not valid TOML: {error}") from None


def _unknown(variables: Mapping[str, str]) -> Iterator[str]:
    valid = variable_names()
    for name, text in sorted(variables.items()):
        if name in valid or name in _NOT_SETTINGS or name.startswith(_OPTION):
            continue
        if _SERVICE_LINK.search(name) or (name.endswith("_PORT") and text.startswith(("tcp://", "udp://"))):
            continue
        yield f"unknown setting {name}: {_nearest(name, [*valid, *_NOT_SETTINGS])}"


def _nearest(name: str, valid: list[str]) -> str:
    return f"the nearest valid name is {nearest(name, valid, min_likeness=0.0)}"


def _from_variables(variables: Mapping[str, str]) -> dict[str, Any]:
    source = EnvSettingsSource(Settings)
    source.env_vars = {name.lower(): text for name, text in variables.items() if not name.startswith(_OPTION)}
    tree: dict[str, Any] = source()
    single = {
        name.removeprefix(_OPTION).lower(): text if is_secret(name) else _json_or_text(text)
        for name, text in variables.items()
        if name.startswith(_OPTION)
    }
    kafka = tree.setdefault("kafka", {})
    whole = _json_or_text(kafka.get("options", {}))
    # Broken JSON stays as it is: validation says so. One option's own variable is stronger than the object.
    kafka["options"] = {**whole, **single} if isinstance(whole, dict) else whole
    return tree


def _json_or_text(value: Any) -> Any:
    try:
        return json.loads(value) if isinstance(value, str) else value
    except json.JSONDecodeError:
        return value


def _merged(under: dict[str, Any], over: dict[str, Any]) -> dict[str, Any]:
    """`over` laid on `under`, table by table."""
    both = dict(under)
    for name, value in over.items():
        below = both.get(name)
        both[name] = _merged(below, value) if isinstance(below, dict) and isinstance(value, dict) else value
    return both


def _lines(error: ValidationError, variables: Mapping[str, str], config: str) -> Iterator[str]:
    """One line per problem."""
    fields: dict[str, FieldInfo] = {name: field for name, _, field in leaves(Settings)}
    for problem in error.errors(include_url=False):
        path = [str(part) for part in problem["loc"]]
        name = PREFIX + "__".join(path[:2]).upper()
        name = name if name in fields else PREFIX + path[0].upper() if path else PREFIX
        place = "" if name in variables or not config else f" (in {config}: {'.'.join(path)})"
        if problem["type"] == "extra_forbidden":
            near = _nearest(PREFIX + "__".join(path).upper(), [*fields])
            yield f"unknown setting {'.'.join(path)} in {config}: {near}"
        elif name not in fields:
            yield _group_problem(name, problem["type"], problem["msg"]) + place
        else:
            text = variables.get(name, problem["input"])
            yield f"{name} = {shown(name, text)}: {_reason(problem, fields[name])}{place}"


def _group_problem(name: str, kind: str, message: str) -> str:
    """A problem of a whole group: either it is no table, or the message already names its settings."""
    return f"{name}__…: must be a table of settings" if kind in {"model_type", "model_attributes_type"} else message


def _reason(problem: Mapping[str, Any], field: FieldInfo) -> str:
    if problem["type"] == "value_error":
        return str(problem["msg"]).removeprefix("Value error, ")
    whole = "a whole number, " if problem["type"].startswith("int_") else ""
    return f"allowed is {whole}{allowed(field)}"


def wants_debug() -> bool:
    """Whether tracebacks are to be shown; also answers when the settings are what is broken."""
    try:
        return load_settings().log.level == "debug"
    except SettingsError:
        return os.environ.get("WORKER_LOG__LEVEL", "").lower() == "debug"


def known_secrets() -> list[str]:
    """Every secret of this process, for masking: never log the result. None where the settings can't be read."""
    try:
        return load_settings().secrets()
    except SettingsError:
        return []
