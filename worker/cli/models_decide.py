"""`worker models promote|rollback|adopt|veto`: what a person decides about a version."""

import argparse
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from worker.cli.models import Actions
    from worker.model.store.model_store import Mark, ModelStore, Status
    from worker.settings import Settings


def add_actions(actions: "Actions") -> None:
    """The sub-commands."""
    promote = actions.add_parser("promote", help="make a version the current one; running workers take it over")
    promote.add_argument("version", metavar="VERSION")
    promote.add_argument("--force", action="store_true", help="even if it was vetoed or rolled back")
    rollback = actions.add_parser("rollback", help="go back to the version before the current one")
    adopt = actions.add_parser("adopt", help="make a version current that the trainer holds back")
    veto = actions.add_parser("veto", help="rule a version out for good; where it is current, go back")
    for action in (adopt, veto):
        action.add_argument("version", metavar="VERSION", nargs="?", help="default: the newest that is held back")
    for action, perform in ((promote, _promote), (rollback, _rollback), (adopt, _adopt), (veto, _veto)):
        action.add_argument("--why", metavar="TEXT", default="", help="the reason, for the list")
        action.set_defaults(perform=perform)


def _promote(args: argparse.Namespace, settings: "Settings") -> int:
    from worker.model.store.model_store import Status

    store, version = _store(settings), args.version
    store.promote(version, mark=_mark(Status.PROMOTED, args.why), force=args.force)
    print(f"{version} is current")
    return 0


def _rollback(args: argparse.Namespace, settings: "Settings") -> int:
    from worker.model.store.model_store import Status

    print(f"{_store(settings).rollback(mark=_mark(Status.ROLLED_BACK, args.why))} is current again")
    return 0


def _adopt(args: argparse.Namespace, settings: "Settings") -> int:
    from worker.model.store.model_store import Status

    store = _store(settings)
    version = args.version or _newest_held(store)
    store.promote(version, mark=_mark(Status.PROMOTED, args.why or "adopted"))
    print(f"{version} is current")
    return 0


def _veto(args: argparse.Namespace, settings: "Settings") -> int:
    from worker.errors import StoreConflict
    from worker.model.store.model_store import Status

    store = _store(settings)
    version = args.version or _newest_held(store)
    store.require_version(version)
    mark = _mark(Status.VETOED, args.why)
    store.mark(version, mark)
    print(f"{version} is vetoed")
    if store.current() == version:
        try:
            print(f"{store.rollback(leaving=version, mark=mark)} is current again")
        except StoreConflict:
            print(f"{store.current()} is current")  # a worker has left it in the meantime
    return 0


def _newest_held(store: "ModelStore") -> str:
    from worker.errors import StoreError
    from worker.model.store.model_store import Status

    held = {version: mark for version, mark in store.marks().items() if mark.status == Status.HELD}
    if not held:
        raise StoreError(f"no model version in {store.name} is held back: name one (worker models list)")
    return max(held, key=lambda version: held[version].at)


def _store(settings: "Settings") -> "ModelStore":
    from worker.processes.wiring import model_store

    return model_store(settings)


def _mark(status: "Status", why: str) -> "Mark":
    from worker.model.store.model_store import Mark
    from worker.processes.wiring import utc_now

    return Mark(status, utc_now(), "operator", why)
