"""`worker check`: settings, device, schema, model store, rules, broker and topics, each with what to do about it."""

import argparse

HELP = "Says whether settings, schema, model store and broker are in order; changes nothing. Exit 1 if anything is not."
EXAMPLE = "WORKER_KAFKA__BOOTSTRAP_SERVERS=broker:9092 WORKER_KAFKA__INPUT_TOPIC=payments worker check"


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """None: what is checked is what the settings say."""


def run(_: argparse.Namespace) -> int:
    """Print one finding after the other; 1 if anything is wrong."""
    from worker.cli.hints import message_of
    from worker.processes.checks import run_checks
    from worker.settings import load_settings
    from worker.texts import printable

    code = 0
    for verdict, name, text in run_checks(load_settings):
        print(f"{verdict:<8}{name:<12} {printable(' '.join(message_of(text).split()))}", flush=True)
        code = 1 if verdict == "FAILED" else code
    return code
