"""`worker models list|show`: what there is, and what was decided about it."""

import argparse
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from worker.cli.models import Actions
    from worker.model.store.bundle import Bundle
    from worker.model.store.model_store import Mark, Version
    from worker.settings import Settings


HEAD = ["", "version", "created", "records", "held-out error", "source", "status", "why"]


def add_actions(actions: "Actions") -> None:
    """The sub-commands."""
    listing = actions.add_parser("list", help="all versions, the current one marked, and what was decided about each")
    listing.add_argument("--json", action="store_true", help="one JSON object a line, with report and figures")
    listing.set_defaults(perform=_list)
    show = actions.add_parser("show", help="everything about one version: facts, report, the figures of its verdict")
    show.add_argument("version", metavar="VERSION", nargs="?", help="default: the current one")
    show.set_defaults(perform=_show)


def _list(args: argparse.Namespace, settings: "Settings") -> int:
    from worker.processes.wiring import model_store

    store = model_store(settings)
    versions = store.versions()
    if args.json:
        import orjson

        for entry in versions:
            print(orjson.dumps(_plain(entry)).decode())
    elif not versions:
        print(f"no model in {store.name} yet: fit one with worker train --once --from FILE")
    else:
        print_table([HEAD, *map(_row, versions)])
    return 0


def _plain(entry: "Version") -> dict[str, Any]:
    return {
        "version": entry.version,
        "created_at": entry.created_at or None,
        "current": entry.current,
        "broken": entry.broken,
        "mark": entry.mark.to_json() if entry.mark is not None else None,
        "report": entry.report,
    }


def _row(entry: "Version") -> list[str]:
    report, mark = entry.report, entry.mark
    status = "broken" if entry.broken else mark.status.replace("_", " ") if mark is not None else ""
    return [
        "*" if entry.current else "",
        entry.version,
        entry.created_at[:16].replace("T", " "),
        str(report.get("rows", "")),
        "" if entry.broken else f"{report.get('held_out_loss', 0):.4g}",
        str(report.get("source", "")),
        status,
        entry.broken or (mark.why if mark is not None else ""),
    ]


def print_table(rows: list[list[str]]) -> None:
    """Aligned columns, one line a version whatever the width of the terminal: for people and for grep."""
    widths = [max(map(len, column)) for column in zip(*rows, strict=True)]
    for row in rows:
        print("  ".join(f"{cell:<{width}}" for cell, width in zip(row, widths, strict=True)).rstrip())


def _show(args: argparse.Namespace, settings: "Settings") -> int:
    from worker.processes.wiring import model_store

    store = model_store(settings)
    bundle = store.load(args.version)
    current = store.current() == bundle.version
    _print_tree(_facts(bundle, current=current))
    _print_tree(_decision(store.marks().get(bundle.version)))
    print("report")
    _print_tree({name: value for name, value in bundle.report.items() if name != "losses"}, "  ")
    return 0


def _facts(bundle: "Bundle", *, current: bool) -> dict[str, str]:
    architecture, median = bundle.network.architecture, float(bundle.calibration[len(bundle.calibration) // 2])
    return {
        "version": f"{bundle.version}{' (current)' if current else ''}",
        "created": bundle.created_at,
        "schema": f"{len(bundle.schema.fields)} fields, fingerprint {bundle.schema.fingerprint}",
        "fields": ", ".join(bundle.fields),
        "inputs": f"{len(bundle.fitted.numeric)} numbers, {sum(bundle.fitted.widths)} categories",
        "hidden layers": ", ".join(map(str, architecture.hidden)),
        "calibration": f"{len(bundle.calibration)} scores, median {_number(median)}",
        "golden rows": str(len(bundle.golden.scores) if bundle.golden is not None else 0),
        "rehearsal rows": str(len(bundle.rehearsal)),
    }


def _decision(mark: "Mark | None") -> dict[str, Any]:
    if mark is None:
        return {"status": "nothing decided yet"}
    facts = {"status": f"{mark.status}, by the {mark.by}, {mark.at}", "why": mark.why}
    return {**facts, "figures": dict(mark.figures)} if mark.figures else facts


def _print_tree(values: dict[str, Any], indent: str = "") -> None:
    for name, value in values.items():
        if isinstance(value, dict):
            print(f"{indent}{name}")
            _print_tree(value, f"{indent}  ")
        else:
            print(f"{indent + name:<20} {_number(value)}")


def _number(value: Any) -> str:
    return f"{value:.6g}" if isinstance(value, float) else str(value)
