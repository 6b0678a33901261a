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

from worker.errors import SettingsError
from worker.settings.describe import allowed, leaves, shown
from worker.settings.secrets import is_secret, read_secret
from worker.settings.tree import PREFIX, Settings
from worker.texts import nearest

CONFIG_FILE = "WORKER_CONFIG_FILE"
SECRETS_DIR = "WORKER_SECRETS_DIR"
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
    variables = {**_dotenv(Path(dotenv)), **{name.upper(): value for name, value in environ.items()}}
    variables = {**_secret_files(variables.get(SECRETS_DIR, "")), **variables}
    variables = {name: text for name, text in variables.items() if name.startswith(PREFIX) and text != ""}
    config = variables.get(CONFIG_FILE, "").strip()
    problems = list(_unknown(variables))
    if problems:
        raise SettingsError("\n".join(problems))
    try:
        return Settings.model_validate(_merged(_toml(config), _tree(variables)))
    except ValidationError as error:
        raise SettingsError("\n".join(_lines(error, variables, config))) from None


def _dotenv(path: Path) -> dict[str, str]:
    if not path.is_file():
        return {}
    try:
        values = dotenv_values(path, encoding="utf-8")
    except (OSError, UnicodeDecodeError) as error:
        raise SettingsError(f"can't read {path}: {error}") from None
    return {name.upper(): value for name, value in values.items() if value is not None}


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
    known = [*(name for name, _, _ in leaves()), *_NOT_SETTINGS]
    for name, text in sorted(variables.items()):
        if name in known or name.startswith(_OPTION) or _SERVICE_LINK.search(name):
            continue
        if name.endswith("_PORT") and text.startswith(("tcp://", "udp://")):
            continue
        yield f"unknown setting {name}: {_nearest(name, known)}"


def _nearest(name: str, known: list[str]) -> str:
    return f"the nearest valid name is {nearest(name, known, min_likeness=0.0)}"


def _tree(variables: Mapping[str, str]) -> dict[str, Any]:
    """The variables as the tree that a TOML file would give."""
    tree: dict[str, Any] = {}
    for name, path, _ in leaves():
        if name in variables:
            group, _, leaf = path.rpartition(".")
            (tree.setdefault(group, {}) if group else tree)[leaf] = variables[name]
    single = {
        name.removeprefix(_OPTION).lower(): text if is_secret(name) else _json_or_text(text)
        for name, text in variables.items()
        if name.startswith(_OPTION)
    }
    if single or _KAFKA_OPTIONS in variables:
        # Broken JSON stays as it is: validation says so. One option's own variable is stronger than the object.
        options = _json_or_text(variables.get(_KAFKA_OPTIONS, "{}"))
        tree.setdefault("kafka", {})["options"] = {**options, **single} if isinstance(options, dict) else options
    return tree


def _json_or_text(text: str) -> Any:
    try:
        return json.loads(text)
    except json.JSONDecodeError:
        return text


def _merged(under: dict[str, Any], over: dict[str, Any]) -> dict[str, Any]:
    """`over` laid on `under`, table by table."""
    both = dict(under)
    for name, value in over.items():
        below = both.get(name)
        both[name] = _merged(below, value) if isinstance(below, dict) and isinstance(value, dict) else value
    return both


def _lines(error: ValidationError, variables: Mapping[str, str], config: str) -> Iterator[str]:
    """One line per problem."""
    fields: dict[str, FieldInfo] = {name: field for name, _, field in leaves()}
    for problem in error.errors(include_url=False):
        path = [str(part) for part in problem["loc"]]
        name = PREFIX + "__".join(path[:2]).upper()
        name = name if name in fields or not path else PREFIX + path[0].upper()
        origin = "" if name in variables or not config else f" (in {config}: {'.'.join(path)})"
        if problem["type"] == "extra_forbidden":
            near = _nearest(PREFIX + "__".join(path).upper(), [*fields])
            yield f"unknown setting {'.'.join(path)} in {config}: {near}"
        elif name in fields:
            value = shown(name, variables.get(name, problem["input"]))
            yield f"{name} = {value}: {_reason(problem, fields[name])}{origin}"
        elif problem["type"] in {"model_type", "model_attributes_type"}:
            yield f"{name}__…: must be a table of settings{origin}"
        else:
            yield str(problem["msg"]).removeprefix("Value error, ") + origin  # of a group: it names its settings


def _reason(problem: Mapping[str, Any], field: FieldInfo) -> str:
    if problem["type"] == "value_error":
        return str(problem["msg"]).removeprefix("Value error, ")
    whole = "a whole number, " if problem["type"].startswith("int_") else ""
    return f"allowed is {whole}{allowed(field)}"


def debug_and_secrets() -> tuple[bool, list[str]]:
    """Whether tracebacks are to be shown, and what is to be masked in them; also where the settings are broken."""
    try:
        settings = load_settings()
    except SettingsError:
        return os.environ.get("WORKER_LOG__LEVEL", "").lower() == "debug", []
    return settings.log.level == "debug", settings.secrets()
