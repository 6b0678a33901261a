"""How the process shows itself, and when it gives up."""

from typing import Literal

from pydantic import Field

from worker.settings.group import Group, Name


class HttpSettings(Group):
    """Health and metrics."""

    port: int = Field(default=0, ge=0, le=65_535, description="port of `/livez`, `/readyz` and `/metrics`; 0 = off")
    host: Name = Field(default="127.0.0.1", description="address to listen on; `0.0.0.0` in a container")
    stall_s: float = Field(
        default=60,
        ge=1,
        le=86_400,
        description="seconds without progress after which `/livez` fails and stacks are logged",
    )


class LogSettings(Group):
    """Logs, on standard error."""

    format: Literal["json", "console"] = Field(
        default="json", description="one JSON object per line, or text for people"
    )
    level: Literal["debug", "info", "warning", "error"] = Field(
        default="info", description="least severe entries to write; `debug` also shows tracebacks"
    )


class BreakerSettings(Group):
    """How much bad input is a fault of the stream instead of its records."""

    invalid_ratio: float = Field(
        default=0.5, gt=0, le=1, description="stop when more than this share of the window can't be scored; 1 = never"
    )
    invalid_window_records: int = Field(
        default=10_000, ge=10, le=10_000_000, description="recent records that the share is taken of"
    )
    consecutive: int = Field(
        default=5_000, ge=0, le=10_000_000, description="stop after this many invalid records in a row; 0 = never"
    )
