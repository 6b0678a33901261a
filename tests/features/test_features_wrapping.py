from typing import Any

import pytest

from worker.features.infer import infer_schema
from worker.features.wrapping import wrapping_array

EVENTS = [{"event": "ab"[at % 2], "n": at} for at in range(5)]


@pytest.mark.parametrize(
    ("row", "path"),
    [
        ({"Records": EVENTS}, "Records"),
        ({"Records": EVENTS[:1]}, "Records"),
        ({"owner": "1", "group": "g", "events": EVENTS}, "events"),
        ({"logs": [{"host": "a", "scopes": [{"s": 1, "records": EVENTS}]}]}, "logs[].scopes[].records"),
        ({"id": 1, "user": "a", "total": 2, "items": EVENTS}, None),
        ({"id": 1, "item": EVENTS[:1]}, None),
        ({"tags": ["a", "b", "c", "d", "e"]}, None),
        ({"a": 1}, None),
        ({}, None),
    ],
)
def test_an_array_that_holds_nearly_everything_wraps_the_records(row: Any, path: str | None) -> None:
    assert wrapping_array([row] * 30) == path


def test_a_proposal_names_the_setting_that_unfolds_the_records() -> None:
    proposal = infer_schema([{"Records": EVENTS}] * 30)

    assert "[input.unfold] = Records" in proposal.lines()[0]
    assert not any("unfold" in line for line in infer_schema([{"a": at % 3} for at in range(30)]).lines())
