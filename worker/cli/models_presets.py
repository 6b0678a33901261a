"""`worker models presets`: the architectures and recipes that WORKER_MODEL__PRESET can name."""

import argparse
from collections.abc import Iterator
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from worker.cli.models import Actions
    from worker.model.network.options import FitOptions
    from worker.settings import Settings

WIDTH = 41
PREFIX = "WORKER_MODEL__"
NOT_SHOWN = ("preset", "seed", "rule", "rule_value")


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
    from worker.model.network.presets import PRESETS, preset_options

    if args.name is not None and args.name not in PRESETS:
        raise UsageError(f"no preset {args.name!r}; there are: {', '.join(PRESETS)}")
    for name in [args.name] if args.name else PRESETS:
        current = " (WORKER_MODEL__PRESET)" if name == settings.model.preset else ""
        options = preset_options(name)
        print(f"{name}{current}: {PRESETS[name].source}")
        print(f"    layers     {_layers(options, args.width)}")
        print(f"    threshold  {_threshold(options)}")
        print(f"    {PREFIX}…  {', '.join(_values(options))}\n")
    return 0


def _layers(options: "FitOptions", width: int) -> str:
    from worker.errors import SettingsError

    try:
        found = options.architecture(width)
    except SettingsError as error:
        return f"none for {width} input columns: {error}"
    return f"{found.written(width)}, the code has {found.latent}"


def _threshold(options: "FitOptions") -> str:
    return options.rule if options.rule_value is None else f"{options.rule} {options.rule_value:g}"


def _values(options: "FitOptions") -> Iterator[str]:
    """Every value that is set, by the name of its setting."""
    for name in options.__dataclass_fields__:
        value = getattr(options, name)
        unused = name == "hidden" and options.layers in {"pyramid", "halfway"}
        if name not in NOT_SHOWN and value is not None and value != () and not unused:
            yield f"{name.upper()}={_written(value)}"


def _written(value: Any) -> str:
    if isinstance(value, tuple):
        return ",".join(map(str, value))
    return str(value).lower() if isinstance(value, bool) else str(value)
