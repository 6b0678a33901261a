"""`worker models`: the versions in the model store."""

import argparse
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from worker.model.store import ModelStore

HELP = "List the model versions, make one the current one, or go back to the one before."
EXAMPLE = """worker models list
worker models promote 3f9a0c51d2e4
worker models rollback"""


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """The sub-commands."""
    actions = parser.add_subparsers(dest="action", metavar="ACTION", required=True)
    actions.add_parser("list", help="all versions, the current one marked")
    promote = actions.add_parser("promote", help="make a version the current one; running workers take it over")
    promote.add_argument("version", metavar="VERSION")
    promote.add_argument("--force", action="store_true", help="even if it was vetoed or rolled back")
    actions.add_parser("rollback", help="go back to the version before the current one")


def run(args: argparse.Namespace) -> int:
    """See HELP."""
    from worker.cli.wiring import model_store
    from worker.settings import load_settings

    store = model_store(load_settings())
    if args.action == "list":
        _list(store)
    elif args.action == "promote":
        store.promote(args.version, force=args.force)
        print(f"{args.version} is current")
    else:
        print(f"{store.rollback()} is current again")
    return 0


def _list(store: "ModelStore") -> None:
    from rich.console import Console
    from rich.table import Table

    versions = store.versions()
    if not versions:
        print(f"no model in {store.root} yet: fit one with worker train --once --from FILE")
        return
    table = Table("", "version", "created", "records", "held-out error", "source")
    for entry in versions:
        report = entry.report
        facts = (
            [entry.broken, "", ""]
            if entry.broken
            else [str(report.get("rows", "")), f"{report.get('held_out_loss', 0):.4g}", str(report.get("source", ""))]
        )
        table.add_row("*" if entry.current else "", entry.version, entry.created_at, *facts)
    Console().print(table)
