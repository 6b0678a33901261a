"""`worker models`: the versions in the store, what was decided about each, what a person decides; and the presets."""

import argparse
import json
from collections.abc import Iterator
from contextlib import suppress
from typing import TYPE_CHECKING, Any

from worker.cli import models_compare
from worker.cli.arguments import whole_number
from worker.cli.printing import print_table, print_tree

if TYPE_CHECKING:
    from worker.cli import Actions
    from worker.model.network.options import FitOptions
    from worker.model.store.bundle import Bundle
    from worker.model.store.model_store import ModelStore, Version
    from worker.model.store.pointer import Mark
    from worker.settings import Settings

HELP = """List the model versions with what was decided about each, and decide: make one the current one, go back to the
one before, adopt or veto one that the trainer holds back. Running workers follow within a second or two."""
EXAMPLE = """worker models list
worker models show 3f9a0c51d2e4
worker models compare 3f9a0c51d2e4 march.jsonl.gz --label is_fraud
worker models promote 3f9a0c51d2e4
worker models rollback
worker models presets --width 41
worker models adopt
worker models veto --why 'the flood of Tuesday'"""

WIDTH = 41
MAX_WHY = 2_000
HEAD = ["", "version", "created", "records", "held-out error", "source", "status", "why"]


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """The actions, each with the function that performs it."""
    actions: Actions = parser.add_subparsers(dest="action", metavar="ACTION", required=True)
    listing = actions.add_parser("list", help="all versions, the current one marked, and what was decided about each")
    listing.add_argument("--json", action="store_true", help="one JSON object a line, with report and figures")
    listing.set_defaults(perform=_list)
    show = actions.add_parser("show", help="everything about one version: facts, report, the figures of its verdict")
    show.add_argument("version", metavar="VERSION", nargs="?", help="default: the current one")
    show.set_defaults(perform=_show)
    models_compare.add_actions(actions)
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
    presets = actions.add_parser(
        "presets", help="what WORKER_MODEL__PRESET can be: source, layers for an input width, every value"
    )
    presets.add_argument("name", metavar="NAME", nargs="?", help="only this one")
    presets.add_argument(
        "--width",
        type=whole_number(2, 1_000_000),
        default=WIDTH,
        metavar="F",
        help=f"input columns to show layers for (default: {WIDTH})",
    )
    presets.set_defaults(perform=_presets)


def run(args: argparse.Namespace) -> int:
    """Perform the action that was chosen."""
    from worker.settings import load_settings

    code: int | None = args.perform(args, load_settings())
    return code or 0


def _list(args: argparse.Namespace, settings: "Settings") -> None:
    import orjson

    store = _store(settings)
    versions = store.versions()
    if args.json:
        for entry in versions:
            print(orjson.dumps(_as_json(entry)).decode())
    elif not versions:
        print(f"no model in {store.name} yet: fit one with worker train --once --from FILE")
    else:
        print_table([HEAD, *map(_row, versions)])


def _as_json(entry: "Version") -> dict[str, Any]:
    return {
        "version": entry.version,
        "created_at": entry.created_at or None,
        "current": entry.current,
        "broken": entry.broken,
        "mark": entry.mark,
        "report": entry.report,
    }


def _row(entry: "Version") -> list[str]:
    from worker.texts import quoted

    report, mark = entry.report, entry.mark
    status = "broken" if entry.broken else mark.status.replace("_", " ") if mark is not None else ""
    return [
        "*" if entry.current else "",
        entry.version,
        entry.created_at[:16].replace("T", " "),
        str(report.get("rows", "")),
        "" if (error := report.get("held_out_loss")) is None else f"{error:.4g}",
        quoted(report.get("source", "")),
        status,
        quoted(entry.broken) if entry.broken else (mark.why if mark is not None else ""),
    ]


def _show(args: argparse.Namespace, settings: "Settings") -> None:
    store = _store(settings)
    bundle = store.load(args.version)
    print_tree(_facts(bundle, current=store.current() == bundle.version))
    mark = store.marks().get(bundle.version)
    if mark is None:
        print_tree({"status": "nothing decided yet"})
    else:
        print_tree({"status": f"{mark.status}, by the {mark.by}, {mark.at}", "why": mark.why})
        print_tree({"figures": mark.figures} if mark.figures else {})
    print_tree({"report": {name: value for name, value in bundle.report.items() if name != "losses"}})


def _facts(bundle: "Bundle", *, current: bool) -> dict[str, str]:
    architecture, median = bundle.network.architecture, float(bundle.calibration[len(bundle.calibration) // 2])
    return {
        "version": f"{bundle.version}{' (current)' if current else ''}",
        "created": bundle.created_at,
        "schema": f"{len(bundle.schema.fields)} fields, fingerprint {bundle.schema.fingerprint}",
        "fields": ", ".join(bundle.fields),
        "inputs": f"{len(bundle.fitted.numeric)} numbers, {sum(bundle.fitted.widths)} categories",
        "hidden layers": ", ".join(map(str, architecture.hidden)),
        "calibration": f"{len(bundle.calibration)} scores, median {median:.6g}",
        "golden rows": str(len(bundle.golden.scores) if bundle.golden is not None else 0),
        "rehearsal rows": str(len(bundle.rehearsal)),
    }


def _promote(args: argparse.Namespace, settings: "Settings") -> None:
    _store(settings).promote(args.version, mark=_mark("promoted", args.why), force=args.force)
    print(f"{args.version} is current")


def _rollback(args: argparse.Namespace, settings: "Settings") -> None:
    print(f"{_store(settings).rollback(mark=_mark('rolled_back', args.why))} is current again")


def _adopt(args: argparse.Namespace, settings: "Settings") -> None:
    store = _store(settings)
    version = args.version or _newest_held(store)
    store.promote(version, mark=_mark("promoted", args.why or "adopted"))
    print(f"{version} is current")


def _veto(args: argparse.Namespace, settings: "Settings") -> None:
    from worker.errors import StoreConflict

    store, mark = _store(settings), _mark("vetoed", args.why)
    version = args.version or _newest_held(store)
    store.require_version(version)
    came_back = None
    if store.current() == version:
        with suppress(StoreConflict):  # else a worker has left it in the meantime
            came_back = store.rollback(leaving=version, mark=mark)  # marks it in one step, or does nothing of both
    if came_back is None:
        store.mark(version, mark)
    print(f"{version} is vetoed")
    if came_back is not None:
        print(f"{came_back} is current again")


def _newest_held(store: "ModelStore") -> str:
    from worker.errors import StoreError

    held = {version: mark for version, mark in store.marks().items() if mark.status == "held"}
    if not held:
        raise StoreError(f"no model version in {store.name} is held back: name one (worker models list)")
    return max(held, key=lambda version: held[version].at)


def _store(settings: "Settings") -> "ModelStore":
    from worker.processes.wiring import model_store

    return model_store(settings)


def _mark(status: str, why: str) -> "Mark":
    from worker.model.store.pointer import Mark, Status
    from worker.processes.wiring import utc_now
    from worker.texts import quoted

    return Mark(Status(status), utc_now(), "operator", quoted(why, MAX_WHY))


def _presets(args: argparse.Namespace, settings: "Settings") -> None:
    from worker.errors import UsageError
    from worker.model.presets import PRESETS, preset_options

    if args.name is not None and args.name not in PRESETS:
        raise UsageError(PRESETS.unknown(args.name))
    for name in [args.name] if args.name else PRESETS:
        current = " (WORKER_MODEL__PRESET)" if name == settings.model.preset else ""
        options = preset_options(name)
        rule = options.rule if options.rule_value is None else f"{options.rule} {options.rule_value:g}"
        print(f"{name}{current}: {PRESETS[name].source}")
        print(f"    layers     {_layers(options, args.width)}")
        print(f"    threshold  {rule}")
        for line in _settings(options):
            print(f"    {line}")
        print()


def _layers(options: "FitOptions", width: int) -> str:
    from worker.cli.hints import message_of
    from worker.errors import SettingsError

    try:
        architecture = options.architecture(width)
    except SettingsError as error:
        return f"none for {width} input columns: {message_of(error)}"
    return f"{architecture.describe(width)}, the latent has {architecture.latent}"


def _settings(options: "FitOptions") -> Iterator[str]:
    """Every value that is set, as a person would set it."""
    from worker.model.network.options import SETTINGS, other_options

    def is_set(name: str) -> bool:
        unused = name == "hidden" and options.layers in {"pyramid", "halfway"}
        return getattr(options, name) not in (None, ()) and not unused

    for name in SETTINGS:
        if name != "preset" and is_set(name):
            value = getattr(options, name)
            yield f"WORKER_MODEL__{name.upper()}={','.join(map(str, value)) if isinstance(value, tuple) else value}"
    others = {name: getattr(options, name) for name, _, _ in other_options() if is_set(name)}
    yield f"WORKER_MODEL__OPTIONS='{json.dumps(others)}'"
