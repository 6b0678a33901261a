"""`worker models`: the versions in the model store.

A group of actions is a module with `add_actions(subparsers)`; each action names the function that performs it.
"""

import argparse
from typing import TYPE_CHECKING

from worker.cli import models_compare, models_decide, models_presets, models_show

if TYPE_CHECKING:
    Actions = argparse._SubParsersAction[argparse.ArgumentParser]  # noqa: SLF001 - argparse has no public name for it

HELP = """List the model versions with what was decided about each, and decide: make one the current one, go back to the
one before, adopt or veto one that the trainer holds back. Running workers follow within a second or two."""
EXAMPLE = """worker models list
worker models show 3f9a0c51d2e4
worker models compare 3f9a0c51d2e4 march.jsonl.gz --label is_fraud
worker models promote 3f9a0c51d2e4
worker models rollback
worker models presets --width 41
worker models presets --width 41
worker models adopt
worker models veto --why 'the flood of Tuesday'"""

GROUPS = (models_show, models_compare, models_decide, models_presets)


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """The actions of all groups."""
    actions = parser.add_subparsers(dest="action", metavar="ACTION", required=True)
    for group in GROUPS:
        group.add_actions(actions)


def run(args: argparse.Namespace) -> int:
    """See HELP."""
    from worker.settings import load_settings

    code: int = args.perform(args, load_settings())
    return code
