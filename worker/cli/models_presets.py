"""`worker models presets`: the architectures and recipes that WORKER_MODEL__PRESET can name."""

import argparse
import json
from collections.abc import Iterator
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from worker.cli.models import Actions
    from worker.model.network.options import FitOptions
    from worker.settings import Settings

WIDTH = 41
PREFIX = "WORKER_MODEL__"


def add_actions(actions: "Actions") -> None:
    """The sub-command."""
    presets = actions.add_parser(
        "presets", help="what WORKER_MODEL__PRESET can be: source, layers for an input width, every value"
    )
    presets.add_argument("name", metavar="NAME", nargs="?", help="only this one")
    presets.add_argument(
        "--width", type=_width, default=WIDTH, metavar="F", help=f"input columns to show layers for (default: {WIDTH})"
    )
    presets.set_defaults(perform=_presets)


def _width(text: str) -> int:
    number = int(text)
    if not 2 <= number <= 1_000_000:
        raise argparse.ArgumentTypeError(f"{text} is not from 2 to 1000000")
    return number


def _presets(args: argparse.Namespace, settings: "Settings") -> int:
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
    return 0


def _layers(options: "FitOptions", width: int) -> str:
    from worker.cli.hints import spelled_out
    from worker.errors import SettingsError

    try:
        architecture = options.architecture(width)
    except SettingsError as error:
        return f"none for {width} input columns: {spelled_out(str(error))}"
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
            yield f"{PREFIX}{name.upper()}={','.join(map(str, value)) if isinstance(value, tuple) else value}"
    others = {name: getattr(options, name) for name, _, _ in other_options() if is_set(name)}
    yield f"{PREFIX}OPTIONS='{json.dumps(others)}'"
