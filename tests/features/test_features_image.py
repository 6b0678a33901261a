"""What the schema file says about ranges and pictures."""

import pytest

from worker.errors import SchemaError
from worker.features.schema import Image, parse_schema

PIXELS = "\n".join(f'[fields.p{place}]\nkind = "numeric"\nrange = [0, 16]' for place in range(4))
IMAGE = '[report.image]\nfields = ["p0", "p1", "p2", "p3"]\nwidth = 2\n'


def test_fields_that_form_a_picture_are_no_part_of_what_a_model_sees() -> None:
    plain, drawn = parse_schema(PIXELS), parse_schema(f"{PIXELS}\n{IMAGE}")

    assert drawn.image == Image(("p0", "p1", "p2", "p3"), 2)
    assert drawn.fingerprint == plain.fingerprint
    assert parse_schema(drawn.to_toml()) == drawn
    assert drawn.without(["p1"]).image is None
    assert drawn.without(["other"]).image == drawn.image


def test_a_range_is_part_of_the_schema_and_its_absence_changes_no_fingerprint() -> None:
    without = parse_schema('[fields.a]\nkind = "numeric"')
    with_range = parse_schema('[fields.a]\nkind = "numeric"\nrange = [0, 2.5]')

    assert with_range.fields[0].options()["range"] == [0.0, 2.5]
    assert with_range.fingerprint != without.fingerprint
    assert "range" not in without.fields[0].options()
    assert without.fingerprint == "ba6a5611e1476af201c6436c93c562947e5a73dc06e5385756abddaa8f57c51b"


@pytest.mark.parametrize("text", ["[1]", "[2, 1]", "[0, 0]", '["a", 2]', "[0, inf]", "[nan, 1]", "3", "[true, 2]"])
def test_a_range_that_is_none_is_refused(text: str) -> None:
    with pytest.raises(SchemaError, match=r"range = .* must be \[low, high\], two finite numbers"):
        parse_schema(f'[fields.a]\nkind = "numeric"\nrange = {text}')


@pytest.mark.parametrize(
    ("text", "why"),
    [
        ('[report.image]\nfields = ["p0", "p9"]\nwidth = 1', "'p9', which is no numeric field"),
        ('[report.image]\nfields = ["p0", "p1", "p2"]\nwidth = 2', "width = 2: must be a whole number that divides 3"),
        ('[report.image]\nfields = ["p0"]\nwidth = 0', "width = 0"),
        ('[report.image]\nfields = ["p0"]\nwidth = true', "width = True"),
        ('[report.image]\nfields = "p0"\nwidth = 1', "must be a list"),
        ('[report.image]\nfields = ["p0"]', "needs fields"),
        ("[report.picture]\nwidth = 1", "holds one table"),
        ("[image]\nwidth = 1", "unknown key 'image'"),
    ],
)
def test_a_picture_that_can_not_be_is_refused(text: str, why: str) -> None:
    with pytest.raises(SchemaError, match=why):
        parse_schema(f"{PIXELS}\n{text}")
