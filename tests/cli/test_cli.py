"""The command line: help at once, one clear line per error, the promised exit codes."""

import subprocess
import sys
from importlib.util import find_spec
from types import ModuleType

import pytest

from worker.cli import COMMANDS, main
from worker.errors import BreakerTripped, DataError, SettingsError, UsageError

LIST_HEAVY = (
    "import sys\n"
    "from worker.cli import main\n"
    "try: main()\n"
    "except SystemExit: pass\n"
    "print([name for name in ('torch', 'numpy', 'kafka', 'pydantic', 'rich') if name in sys.modules])"
)


def command(monkeypatch: pytest.MonkeyPatch, outcome: BaseException | int) -> None:
    """Put a command that ends this way in the place of `check`."""
    module = ModuleType("worker.cli.stand_in")

    def run(args: object) -> int:
        if isinstance(outcome, BaseException):
            raise outcome
        return outcome

    def add_arguments(parser: object) -> None: ...

    vars(module).update(HELP="Does nothing.", EXAMPLE="worker check", run=run, add_arguments=add_arguments)
    monkeypatch.setitem(sys.modules, module.__name__, module)
    monkeypatch.setitem(COMMANDS, "check", (module.__name__, "does nothing"))
    monkeypatch.delenv("WORKER_LOG__LEVEL", raising=False)


def test_help_names_every_command(capsys: pytest.CaptureFixture[str]) -> None:
    with pytest.raises(SystemExit) as ended:
        main(["--help"])

    out = capsys.readouterr().out
    assert ended.value.code == 0
    assert all(name in out for name in COMMANDS)


@pytest.mark.parametrize("arguments", [["--help"], *([name, "--help"] for name in COMMANDS)])
def test_help_imports_nothing_heavy(arguments: list[str]) -> None:
    run = subprocess.run([sys.executable, "-c", LIST_HEAVY, *arguments], capture_output=True, text=True, check=True)
    out = run.stdout

    assert out.splitlines()[-1] == "[]"


def test_the_help_of_a_command_ends_with_an_example(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    command(monkeypatch, 0)

    with pytest.raises(SystemExit):
        main(["check", "--help"])

    assert capsys.readouterr().out.endswith("example:\n  worker check\n")


def test_the_version_is_one_line(capsys: pytest.CaptureFixture[str]) -> None:
    with pytest.raises(SystemExit) as ended:
        main(["--version"])

    assert ended.value.code == 0
    assert capsys.readouterr().out.startswith("worker ")


@pytest.mark.parametrize("name", [name for name in COMMANDS if find_spec(COMMANDS[name][0])])
def test_every_command_has_help_with_an_example(name: str, capsys: pytest.CaptureFixture[str]) -> None:
    with pytest.raises(SystemExit) as ended:
        main([name, "--help"])

    assert ended.value.code == 0
    assert "example:\n  " in capsys.readouterr().out


def test_no_command_and_an_unknown_command_are_wrong_usage(capsys: pytest.CaptureFixture[str]) -> None:
    assert main([]) == 2
    with pytest.raises(SystemExit) as ended:
        main(["chekc"])

    assert ended.value.code == 2
    assert "chekc" in capsys.readouterr().err


@pytest.mark.parametrize("code", [0, 1])
def test_a_command_decides_its_exit_code(monkeypatch: pytest.MonkeyPatch, code: int) -> None:
    command(monkeypatch, code)

    assert main(["check"]) == code


@pytest.mark.parametrize(
    ("error", "code"),
    [
        (DataError("no such file"), 1),
        (UsageError("no such file"), 2),
        (BreakerTripped("no such file"), 3),
    ],
)
def test_an_error_is_one_line_and_its_exit_code(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str], error: Exception, code: int
) -> None:
    command(monkeypatch, error)

    assert main(["check"]) == code
    assert capsys.readouterr().err == "error: no such file\n"


def test_several_problems_of_the_settings_are_a_line_each(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    command(monkeypatch, SettingsError("first\nsecond"))

    assert main(["check"]) == 1
    assert capsys.readouterr().err == "error: first\nerror: second\n"


def test_an_unexpected_error_is_one_line_without_a_traceback(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    command(monkeypatch, KeyError("x"))

    assert main(["check"]) == 1
    assert capsys.readouterr().err == "error: unexpected KeyError: 'x'\n"


@pytest.mark.parametrize("level", ["info", "debug"])
def test_an_error_and_its_traceback_show_no_secret(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str], level: str
) -> None:
    command(monkeypatch, ValueError("login as app with hunter2 failed"))
    monkeypatch.setenv("WORKER_LOG__LEVEL", level)
    monkeypatch.setenv("WORKER_KAFKA__OPTIONS__SASL_PLAIN_PASSWORD", "hunter2")

    assert main(["check"]) == 1
    err = capsys.readouterr().err
    assert err.endswith("error: unexpected ValueError: login as app with [secret] failed\n")
    assert "hunter2" not in err


def test_debug_shows_the_traceback_even_when_the_settings_are_wrong(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    command(monkeypatch, DataError("no such file"))
    monkeypatch.setenv("WORKER_LOG__LEVEL", "debug")
    monkeypatch.setenv("WORKER_SEED", "wrong")

    assert main(["check"]) == 1
    err = capsys.readouterr().err
    assert err.startswith("Traceback")
    assert err.endswith("error: no such file\n")


def test_an_interrupt_ends_with_130(monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]) -> None:
    command(monkeypatch, KeyboardInterrupt())

    assert main(["check"]) == 130
    assert capsys.readouterr().err == "interrupted\n"
