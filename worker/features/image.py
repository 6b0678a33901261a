"""Fields of a record that form a picture, for the report: part of the schema file, never of what a model sees.

[report.image]
fields = ["p0", "p1", …]    # numeric fields, row by row from the top left
width = 8                   # pixels in a row
"""

from collections.abc import Collection
from dataclasses import dataclass
from typing import Any

from worker.errors import SchemaError

MAX_PIXELS = 4096


@dataclass(frozen=True)
class Image:
    """fields are the names of the pixels, row by row; width is the number of pixels in a row."""

    fields: tuple[str, ...]
    width: int


def parse_report(table: Any, numeric: Collection[str]) -> Image | None:
    """The image of a schema's [report] table, None where it has none; SchemaError says what is wrong.

    numeric   names of the numeric fields
    """
    if not isinstance(table, dict) or set(table) - {"image"}:
        raise SchemaError("[report] holds one table, [report.image], with fields and width")
    image = table.get("image")
    if image is None:
        return None
    if not isinstance(image, dict) or set(image) != {"fields", "width"}:
        raise SchemaError("[report.image] needs fields (a list of names) and width (pixels in a row), and nothing else")
    fields, width = image["fields"], image["width"]
    if not isinstance(fields, list) or not 1 <= len(fields) <= MAX_PIXELS:
        raise SchemaError(f"[report.image] fields must be a list of 1 to {MAX_PIXELS} names of numeric fields")
    wrong = next((name for name in fields if name not in numeric), None)
    if wrong is not None:
        raise SchemaError(f"[report.image] fields names {wrong!r}, which is no numeric field of this schema")
    if type(width) is not int or width < 1 or len(fields) % width:
        raise SchemaError(f"[report.image] width = {width!r}: must be a whole number that divides {len(fields)} fields")
    return Image(tuple(fields), width)
