"""The command line: finds the command, runs it, and turns errors into one clear line and an exit code.

Exit codes: 0 ok, 1 failed, 2 wrong usage, 3 the breaker tripped (see worker.errors), 130 interrupted.

A command is a module here with `add_arguments(parser)`, `run(args) -> int` and the texts `HELP` and `EXAMPLE`.
Only the chosen one is imported, and it imports what is heavy inside `run`, so that `--help` is instant.
"""

import argparse
import codecs
import importlib
import io
import os
import sys
import traceback
from collections.abc import Sequence
from typing import TYPE_CHECKING, Any, NoReturn

from worker.errors import WorkerError
from worker.texts import printable

INTERRUPTED = 130
_PLAINER = {"…": "...", "→": "->", "·": "-", "±": "+-", "µ": "u", "≥": ">=", "≤": "<=", "✓": "ok"}

if TYPE_CHECKING:  # the sub-commands of a command
    Actions = argparse._SubParsersAction[argparse.ArgumentParser]  # noqa: SLF001 - argparse has no public name for it

COMMANDS = {
    "run": ("worker.cli.run", "score the input topic and publish alerts, until it is told to stop"),
    "train": ("worker.cli.train", "fit models to recent traffic, or once to a file"),
    "replay": ("worker.cli.replay", "try the settings on recorded traffic and report what would have been alerted"),
    "infer-schema": ("worker.cli.infer", "propose a schema for the records of a file or a topic"),
    "demo": ("worker.cli.demo", "see it all work here: a broker, traffic with planted anomalies, alerts"),
    "check": ("worker.cli.check", "say whether settings, schema, model store and broker are in order"),
    "models": ("worker.cli.models", "list the model versions and decide which one is current"),
}


def main(argv: Sequence[str] | None = None) -> int:
    """Run one command; returns the exit code. `argv` defaults to the process's arguments."""
    argv = sys.argv[1:] if argv is None else argv
    _print_anything()
    try:
        return _dispatch(list(argv))
    except WorkerError as error:
        from worker.cli.hints import message_of

        return _failed(error, message_of(error), error.exit_code)
    except KeyboardInterrupt:
        sys.stderr.write("interrupted\n")
        return INTERRUPTED
    except BrokenPipeError:
        # The reader of a pipe has gone (`worker … | head`): nothing is left to say, not even at exit.
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
        return 1
    except Exception as error:  # noqa: BLE001 - the outermost edge: an unexpected error is one line, too
        return _failed(error, f"unexpected {type(error).__name__}: {error}", 1)


def _print_anything() -> None:
    """Let both streams take every character, whatever their encoding: what it lacks becomes plainer."""
    codecs.register_error("plainer", _plainer)
    for stream in (sys.stdout, sys.stderr):
        if isinstance(stream, io.TextIOWrapper):
            stream.reconfigure(errors="plainer")


def _plainer(error: UnicodeError) -> tuple[str, int]:
    if not isinstance(error, UnicodeEncodeError):
        raise error
    text = error.object[error.start : error.end]
    return "".join(_PLAINER.get(letter) or ascii(letter)[1:-1] for letter in text), error.end


def _dispatch(argv: list[str]) -> int:
    chosen = next((word for word in argv if not word.startswith("-")), None)
    if not argv:
        build_parser().print_help(sys.stderr)
        return 2
    module = importlib.import_module(COMMANDS[chosen][0]) if chosen in COMMANDS else None
    args = build_parser(chosen, module).parse_args(argv)
    assert module is not None  # noqa: S101 - parse_args has refused any other command
    code: int = module.run(args)
    return code


def build_parser(chosen: str | None = None, module: Any = None) -> argparse.ArgumentParser:
    """The parser: all commands by name and one line, and the arguments of the chosen one."""
    parser = argparse.ArgumentParser(
        prog="worker",
        description="Finds the anomalous records of a Kafka topic and publishes them, explained, as alerts.",
        epilog="worker COMMAND --help says more about a command.\nexample:\n  worker demo --seconds 60",
        formatter_class=argparse.RawDescriptionHelpFormatter,
    )
    parser.add_argument("--version", action=_Version, nargs=0, help="show the version and exit")
    commands = parser.add_subparsers(title="commands", metavar="COMMAND", required=True)
    for name, (_, line) in COMMANDS.items():
        if name == chosen:
            command = commands.add_parser(
                name,
                help=line,
                description=module.HELP,
                epilog=f"example:\n{_indented(module.EXAMPLE)}",
                formatter_class=argparse.RawDescriptionHelpFormatter,
            )
            module.add_arguments(command)
        else:
            commands.add_parser(name, help=line)
    return parser


def _indented(example: str) -> str:
    return "\n".join(f"  {line}" for line in example.strip().splitlines())


class _Version(argparse.Action):
    """Looks the version up only when it is asked for."""

    def __call__(self, parser: argparse.ArgumentParser, *_: object) -> NoReturn:
        from importlib.metadata import PackageNotFoundError, version

        try:
            number = version("kafka-anomaly-worker")
        except PackageNotFoundError:
            number = "(not installed)"
        print(f"worker {number}")
        parser.exit()


def _failed(error: Exception, message: str, code: int) -> int:
    """Say what went wrong, a line for each problem; with WORKER_LOG__LEVEL=debug also where. Never shows a secret."""
    from worker.ops.logs import masking
    from worker.settings import debug_and_secrets

    debug, secrets = debug_and_secrets()
    mask = masking(secrets)
    if debug:
        sys.stderr.write(mask("".join(traceback.format_exception(error))))
    for line in message.splitlines() or [type(error).__name__]:
        sys.stderr.write(f"error: {printable(mask(line))}\n")
    return code
