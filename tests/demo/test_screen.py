"""What the demo prints: plain lines when piped, lines that fit in a terminal."""

import io
from typing import Any

import pytest
from rich.console import Console

from worker.demo.anomalies import Ledger, Planted
from worker.demo.screen import Screen

ALERT: dict[str, Any] = {
    "event_time": "2026-01-21T09:08:00.000Z",
    "score": 0.758,
    "threshold": 0.124,
    "severity": "critical",
    "explanation": [
        {"field": "merchant.country", "observed": "DE", "expected": "DE", "share": 0.5},
        {"field": "amount", "observed": 2843.15, "expected": 66.33, "share": 0.3},
        {"field": "(missing fields)", "observed": "without device", "expected": "all fields present", "share": 0.2},
    ],
}


def printed(console: Console) -> str:
    assert isinstance(console.file, io.StringIO)
    return console.file.getvalue()


@pytest.fixture
def pipe() -> Console:
    return Console(file=io.StringIO(), highlight=False)


def test_an_alert_is_one_line_with_time_score_threshold_two_reasons_and_the_truth(pipe: Console) -> None:
    Screen(pipe).alert(ALERT, Planted("t1", "scaled_number", ("amount",)))

    (line,) = printed(pipe).splitlines()
    assert line.split() == (
        "Wed 21 09:08 0.758 / 0.124 amount 2,843.15 → 66.33 without device scaled number".split()  # noqa: SIM905
    )


def test_an_alert_of_an_ordinary_payment_says_so(pipe: Console) -> None:
    Screen(pipe).alert(ALERT, None)

    assert printed(pipe).endswith("not planted\n")


def test_a_reason_whose_value_was_expected_comes_last(pipe: Console) -> None:
    Screen(pipe).alert({**ALERT, "explanation": ALERT["explanation"][:2]}, None)

    text = printed(pipe)
    assert text.index("amount 2,843.15 → 66.33") < text.index("merchant.country DE → DE")


@pytest.mark.parametrize("width", [80, 100, 120, 200])
def test_an_alert_fits_on_one_line_of_the_terminal(width: int) -> None:
    console = Console(file=io.StringIO(), highlight=False, force_terminal=True, width=width, color_system=None)

    Screen(console).alert(ALERT, Planted("t1", "amount_out_of_pattern", ("amount",)))

    (line,) = printed(console).splitlines()
    assert len(line) <= width


def test_piped_output_has_no_control_characters(pipe: Console) -> None:
    screen = Screen(pipe)
    book = Ledger()
    book.send(Planted("t1", "scaled_number", ("amount",)))
    book.alert("t1")

    screen.step("broker", "up")
    with screen.waiting("training"), screen.live():
        screen.alert(ALERT, None)
        screen.status(book, clock="2026-01-21T09:08:00Z", scored=9, per_second=1.0, left_s=3.0)
    screen.summary(book.summary(), ["kept: somewhere"])

    assert "\x1b" not in printed(pipe)
    assert "\r" not in printed(pipe)


def test_the_summary_names_each_kind_and_the_verdict(pipe: Console) -> None:
    book = Ledger()
    book.send(Planted("t1", "scaled_number", ("amount",)))
    book.send(Planted("t2", "field_swap", ("currency",)))
    book.alert("t1")

    Screen(pipe).summary(book.summary(), ["from payment to alert: 70 ms (median)"])

    text = printed(pipe)
    assert [row.split()[1:-1] for row in text.splitlines() if "scaled number" in row] == [
        ["scaled", "number", "│", "1", "│", "1", "│", "100%"]
    ]
    assert "false alerts: 0 of 0 normal payments (0.00%)" in text
    assert "from payment to alert: 70 ms (median)" in text
    assert text.splitlines()[-1].startswith("FAILED: at least 80% of the planted")
