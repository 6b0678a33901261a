"""Settings of what an alert tells, and of which alerts are published."""

from typing import Annotated

from pydantic import BeforeValidator, Field
from pydantic_settings import NoDecode

from worker.settings.group import Group, Name, empty_is_none
from worker.settings.options import parse_list


class AlertSettings(Group):
    """What an alert tells, how many are wanted, and which are published."""

    per_day: float | None = Field(
        default=None,
        gt=0,
        le=10_000_000,
        description="alerts wanted in a day of event time, over all partitions, instead of a quantile; with "
        "`WORKER_THRESHOLD__QUANTILE` set too, the stricter of both counts",
    )
    per_hour: float | None = Field(
        default=None, gt=0, le=10_000_000, description="the same for an hour; with both, the stricter counts"
    )

    max_reasons: int = Field(default=5, ge=1, le=1_000, description="most fields in an alert's explanation")
    redact: Annotated[tuple[Name, ...], NoDecode, BeforeValidator(parse_list)] = Field(
        default=(),
        description="fields whose values are left out of alerts",
        json_schema_extra={"allowed": "field names separated by commas"},
    )
    group_by: Annotated[tuple[Name, ...], NoDecode, BeforeValidator(parse_list), Field(max_length=8)] = Field(
        default=(),
        description="alerts with the same values in these fields, each within the cooldown of the one before, are one "
        "group of a partition: an opening alert, updates at 10, 100, 1000 … of them, a closing alert; where empty, "
        "each alert stands alone",
        json_schema_extra={"allowed": "up to 8 field names separated by commas"},
    )
    cooldown_s: float = Field(
        default=300, ge=1, le=2_592_000, description="seconds of event time without an alert that end a group"
    )
    silences_file: Annotated[Name | None, BeforeValidator(empty_is_none)] = Field(
        default=None,
        description="TOML file of silences: alerts that are counted, not published; off where empty",
    )
    max_per_minute: int = Field(
        default=0,
        ge=0,
        le=1_000_000,
        description="most alerts of a partition in a minute of event time, closings apart; those over the limit are "
        "summed up in one alert; 0 = no limit",
    )
