"""The verdict of the demo follows from what was planted and what was alerted."""

import pytest

from worker.demo.anomalies import Ledger, Planted


def ledger(*, planted: int, alerted: int, normal: int, false: int) -> Ledger:
    """A ledger after that much traffic, with alerts for the first `alerted` and `false` of it."""
    book = Ledger()
    for number in range(planted):
        book.send(Planted(f"p{number}", "field_swap", ("currency",)))
    for _ in range(normal):
        book.send(None)
    for number in range(alerted):
        book.alert(f"p{number}")
    for number in range(false):
        book.alert(f"o{number}")
    return book


@pytest.mark.parametrize(
    ("alerted", "false", "passed"),
    [(10, 0, True), (8, 9, True), (7, 0, False), (10, 10, False)],
)
def test_it_passes_from_80_percent_found_and_below_1_percent_false(alerted: int, false: int, passed: bool) -> None:
    summary = ledger(planted=10, alerted=alerted, normal=1000, false=false).summary()

    assert summary.passed is passed
    assert summary.recall == alerted / 10
    assert summary.false_share == false / 1000


def test_a_repeated_alert_counts_once() -> None:
    book = ledger(planted=2, alerted=1, normal=10, false=1)
    book.alert("p0")

    summary = book.summary()

    assert summary.kinds == {"field_swap": (2, 1)}
    assert (summary.false_alerts, summary.repeated_alerts) == (1, 1)


def test_a_demo_without_planted_payments_did_not_pass() -> None:
    assert ledger(planted=0, alerted=0, normal=100, false=0).summary().passed is False


def test_an_alert_tells_the_truth_about_its_payment() -> None:
    book = ledger(planted=1, alerted=0, normal=1, false=0)

    assert book.alert("p0") == Planted("p0", "field_swap", ("currency",))
    assert book.alert("other") is None
