"""`worker check`: settings, device, schema, model store, rules, broker and topics, each with what to do about it."""

import argparse

HELP = "Says whether settings, schema, model store and broker are in order; changes nothing. Exit 1 if anything is not."
EXAMPLE = "WORKER_KAFKA__BOOTSTRAP_SERVERS=broker:9092 WORKER_KAFKA__INPUT_TOPIC=payments worker check"


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """None: what is checked is what the settings say."""


def run(_: argparse.Namespace) -> int:
    """Print one finding after the other; 1 if anything is wrong."""
    from worker.cli.hints import message_of
    from worker.ops.logs import masking
    from worker.processes.checks import run_checks
    from worker.settings import debug_and_secrets, load_settings
    from worker.texts import printable

    code, mask = 0, masking(debug_and_secrets()[1])
    for verdict, name, text in run_checks(load_settings):
        said = printable(" ".join(mask(message_of(text)).split()))
        print(f"{verdict:<8}{name:<12} {said}", flush=True)
        code = 1 if verdict == "FAILED" else code
    return code
