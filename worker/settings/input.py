"""Settings of how the bytes of records are read, beside the format itself."""

from typing import Annotated, Literal

from pydantic import AfterValidator, BeforeValidator

from worker.settings.base import Group, Name, empty_is_none, matching, parse_list, setting


class InputSettings(Group):
    """What a record format leaves open."""

    envelope: Literal["auto", "none", "debezium", "mongo", "otel"] = setting(
        "auto",
        "what is undone after a record is decoded: change events of Debezium, MongoDB's extended JSON, typed values of "
        "OpenTelemetry; all of them, none, or one",
    )
    unfold: Annotated[
        str | None,
        BeforeValidator(empty_is_none),
        matching(r"[^\[\]]+(\[\]\.[^\[\]]+)*(\[\])?", "names of arrays: Records, or one in another, a[].b"),
    ] = setting(
        None,
        "array whose members are the records: `Records`, or `resourceLogs[].scopeLogs[].logRecords`; empty: none",
    )
    nan: Literal["refuse", "null"] = setting(
        "refuse", "JSON with NaN or Infinity, as Python writes it, is a dead letter, or has null there"
    )
    columns: Annotated[tuple[Name, ...], BeforeValidator(parse_list)] = setting(
        (),
        "names of the cells of the format `csv`, and of CSV files without a header; empty: a file's first line, a "
        "value's own first of two lines, else `column_1` …",
        allowed="names separated by commas",
    )
    delimiter: Annotated[
        str | None,
        BeforeValidator(empty_is_none),
        matching(r"tab|[^\w\s\"]", "one character, or tab"),
        AfterValidator(lambda value: "\t" if value == "tab" else value),
    ] = setting(
        None,
        "what stands between two cells of the format `csv` and of CSV files, `tab` for a tab; empty: , ; | or tab, "
        "whichever a value or a file's first line has more of",
    )
