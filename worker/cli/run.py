"""`worker run`: the long-running consumer."""

import argparse

HELP = """Read the input topic, score every record, publish alerts and dead letters, commit. Runs until SIGTERM or
SIGINT, then finishes the open batch, leaves the group and exits 0; a second signal ends it at once."""
EXAMPLE = "WORKER_KAFKA__BOOTSTRAP_SERVERS=localhost:9092 WORKER_KAFKA__INPUT_TOPIC=payments worker run"


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """None: a long-running process is set up by its environment."""
    del parser


def run(args: argparse.Namespace) -> int:
    """Run the worker until it is told to stop."""
    del args
    from worker.cli.hints import message_of
    from worker.processes.process import Stop
    from worker.processes.worker_process import WorkerProcess
    from worker.settings import load_settings

    return WorkerProcess(load_settings(), Stop(), message_of).run()
