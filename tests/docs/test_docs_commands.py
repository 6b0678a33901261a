"""Every command of the pages runs, or says why it can't."""

import re
import shlex
from collections.abc import Callable
from dataclasses import replace
from importlib import import_module
from importlib.util import find_spec
from pathlib import Path

import orjson
import pytest

from devtools.brokers import read_all
from tests.docs.common import PAGES, ROOT, Block, blocks_of, code_spans, commands_in, name_of, validator
from tests.docs.conftest import Prepared, Shell
from tests.docs.preloaded import LOAD_SETTINGS
from worker.cli import COMMANDS, build_parser

README = ROOT / "README.md"
SETTINGS_ONLY = f"worker() {{ command worker {LOAD_SETTINGS}; }}"
_PLACEHOLDER = re.compile(r"[…|<>&]")


def runnable(page: Path) -> list[Block]:
    return [block for block in blocks_of(page) if block.language in {"sh", "python"} and block.mark != "not run"]


def run_all(page: Path, shell: Shell) -> None:
    for block in runnable(page):
        if block.language == "python":
            (shell.folder / "block.py").write_text(block.text, encoding="utf-8")
            shell.run(replace(block, text="python block.py\n"))
        else:
            shell.run(block, SETTINGS_ONLY if block.mark == "settings only" else "")


@pytest.mark.broker
@pytest.mark.parametrize("page", [page for page in PAGES if page != README and runnable(page)], ids=name_of)
def test_the_commands_of_a_page_run_in_order(page: Path, make_shell: Callable[[str], Shell]) -> None:
    run_all(page, make_shell(name_of(page)))


@pytest.mark.broker
def test_the_way_through_the_readme_begins_with_a_recording_and_ends_with_alerts(
    make_shell: Callable[[str], Shell], prepared: Prepared
) -> None:
    shell = make_shell("README.md")
    assert not (shell.folder / "models").exists()
    before = len(read_all(prepared.broker, "alerts"))
    run_all(README, shell)

    alerts = [orjson.loads(alert.value or b"") for alert in read_all(prepared.broker, "alerts")[before:]]
    assert (shell.folder / "out" / "replay" / "report.html").exists()
    assert alerts
    for alert in alerts:
        validator("alert").validate(alert)


def worker_commands() -> list[tuple[str, str]]:
    """Every `worker …` of the pages, in blocks that are run and in those that are not, and in the prose."""
    seen = []
    for page in PAGES:
        blocks = [command for block in blocks_of(page) if block.language == "sh" for command in commands_in(block.text)]
        spans = [span for span in code_spans(page) if not _PLACEHOLDER.search(span)]
        for command in [*blocks, *spans]:
            words = re.sub(r"\s+(>|\|| &).*$", "", command)
            if words.startswith("worker ") and words.split()[1] in COMMANDS and words != "worker models":
                seen.append((name_of(page), words))
    return list(dict.fromkeys(seen))


@pytest.mark.parametrize(("page", "command"), worker_commands())
def test_a_command_on_a_page_is_one_that_the_parser_takes(
    page: str, command: str, capsys: pytest.CaptureFixture[str]
) -> None:
    del page
    argv = shlex.split(command)[1:]
    parser = build_parser(argv[0], import_module(COMMANDS[argv[0]][0]))
    try:
        parser.parse_args(argv)
    except SystemExit:
        pytest.fail(f"{command}: {capsys.readouterr().err}")


def test_a_make_target_on_a_page_is_in_the_makefile() -> None:
    targets = set(re.findall(r"^([a-z-]+):", (ROOT / "Makefile").read_text(encoding="utf-8"), flags=re.MULTILINE))
    named = {
        target[1]
        for page in PAGES
        for text in [*code_spans(page), *(block.text for block in blocks_of(page) if block.language == "sh")]
        for target in re.finditer(r"^(?:[A-Z_]+=\S+ )?make ([a-z-]+)", text, flags=re.MULTILINE)
    }

    assert named <= targets
    assert named


def test_a_module_that_a_page_runs_exists() -> None:
    named = {
        name
        for page in PAGES
        for text in [*code_spans(page), *(block.text for block in blocks_of(page))]
        for name in re.findall(r"python -m ([a-z_.]+[a-z_])", text)
    }

    assert not [name for name in sorted(named) if find_spec(name) is None]
    assert named
