"""Silences: what they fit, what they count, and how a broken file is refused."""

from collections.abc import Sequence
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import pytest

from worker.alerts.explain import Exceedance
from worker.alerts.silences import Silences, load_silences
from worker.errors import SettingsError
from worker.records import NO_TIME, Message, Reason


def at(text: str) -> int:
    return round(datetime.fromisoformat(text).replace(tzinfo=UTC).timestamp() * 1000)


NOON = at("2026-05-10T12:00:00")


def exceedance(record: dict[str, Any], time_ms: int) -> Exceedance:
    return Exceedance(0, Message("in", 0, 0, 0, None, b""), record, time_ms, 2.0, 1.0, "info", None, "v1")


class Case:
    """A file of silences, asked about one exceedance at a time."""

    def __init__(self, folder: Path, text: str) -> None:
        path = folder / "silences.toml"
        path.write_text(text, encoding="utf-8")
        self.silences = load_silences(path)
        self.explained = 0

    def __call__(
        self, record: dict[str, Any], time_ms: int = NOON, *, reason: str = "other", expected: Any = 0
    ) -> str | None:
        def explain(rows: Sequence[int]) -> list[list[Reason]]:
            self.explained += len(rows)
            return [[Reason(reason, record.get(reason), expected, 0.9)] for _ in rows]

        loud, silenced = self.silences.apply([exceedance(record, time_ms)], explain)
        assert len(loud) + silenced.total() == 1
        return next(iter(silenced), None)


def test_without_silences_every_exceedance_is_published_and_nothing_explained() -> None:
    both = [exceedance({}, 0), exceedance({}, 0)]

    assert Silences().apply(both, lambda _: pytest.fail("not needed")) == (both, {})


def test_values_match_the_record_whatever_explains_the_alert(tmp_path: Path) -> None:
    case = Case(tmp_path, '[silences.test-cards]\nfield = "card.kind"\nvalues = ["test", 1, true]')

    assert case({"card": {"kind": "test"}}) == "test-cards"
    assert [case({"card.kind": value}) for value in (1.0, True)] == ["test-cards"] * 2
    assert [case({"card.kind": value}) for value in ("TEST", 2, False, None, [1], {"a": 1})] == [None] * 6
    assert case({}) is None
    assert case.explained == 0


def test_a_field_alone_is_about_alerts_that_it_explains_most(tmp_path: Path) -> None:
    case = Case(tmp_path, '[silences.clock]\nfield = "time"')

    assert case({"time": "x"}, reason="time") == "clock"
    assert case({"time": "x"}, reason="amount") is None


@pytest.mark.parametrize(
    ("direction", "observed", "silence"), [("above", 9, "r"), ("below", 9, None), ("below", 1, "r")]
)
def test_a_direction_compares_what_was_observed_with_what_was_expected(
    tmp_path: Path, direction: str, observed: float, silence: str | None
) -> None:
    case = Case(tmp_path, f'[silences.r]\nfield = "amount"\ndirection = "{direction}"')

    assert case({"amount": observed}, reason="amount", expected=5) == silence
    assert case({"amount": observed}, reason="other", expected=5) is None


@pytest.mark.parametrize("observed", ["9", True, None])
def test_a_direction_never_matches_what_is_no_number(tmp_path: Path, observed: Any) -> None:
    case = Case(tmp_path, '[silences.r]\nfield = "amount"\ndirection = "above"')

    assert case({"amount": observed}, reason="amount", expected=0) is None


def test_values_and_direction_must_both_hold(tmp_path: Path) -> None:
    case = Case(tmp_path, '[silences.r]\nfield = "amount"\nvalues = [9, 1]\ndirection = "above"')

    assert case({"amount": 9}, reason="amount", expected=5) == "r"
    assert case({"amount": 8}, reason="amount", expected=5) is None
    assert case({"amount": 1}, reason="amount", expected=5) is None


def test_a_time_window_includes_its_start_and_not_its_end(tmp_path: Path) -> None:
    case = Case(tmp_path, "[silences.release]\nfrom = 2026-05-10T10:00:00+02:00\nuntil = 2026-05-11")
    start, end = at("2026-05-10T08:00:00"), at("2026-05-11T00:00:00")

    assert [case({}, time_ms) for time_ms in (start - 1, start, end - 1, end, NO_TIME)] == [
        None,
        "release",
        "release",
        None,
        None,
    ]


@pytest.mark.parametrize(
    ("daily", "inside", "outside"),
    [
        ("22:00-06:00", ["22:00", "23:59", "00:00", "05:59"], ["06:00", "12:00", "21:59"]),
        ("09:30-10:00", ["09:30", "09:59"], ["09:29", "10:00"]),
        ("18:00-24:00", ["18:00", "23:59"], ["00:00", "17:59"]),
        ("00:00-24:00", ["00:00", "12:00", "23:59"], []),
    ],
)
def test_daily_hours_are_utc_and_may_run_past_midnight(
    tmp_path: Path, daily: str, inside: list[str], outside: list[str]
) -> None:
    case = Case(tmp_path, f'[silences.night]\ndaily = "{daily}"')

    assert [case({}, at(f"2026-05-10T{hour}:00")) for hour in inside] == ["night"] * len(inside)
    assert [case({}, at(f"2026-05-10T{hour}:00")) for hour in outside] == [None] * len(outside)
    assert case({}, NO_TIME) is None


def test_the_first_fitting_silence_of_the_file_counts(tmp_path: Path) -> None:
    case = Case(
        tmp_path,
        '[silences.first]\nfield = "a"\ndirection = "above"\n[silences.second]\nfield = "a"\nvalues = [1]\n'
        "[silences.third]\nfrom = 2020-01-01",
    )

    assert case({"a": 1}, reason="a", expected=0) == "first"
    assert case({"a": 1}, reason="a", expected=2) == "second"
    assert case({"a": 0}, reason="b", expected=2) == "third"


def test_a_reason_of_a_field_that_the_model_lacks_is_refused(tmp_path: Path) -> None:
    silences = Case(tmp_path, '[silences.typo]\nfield = "amuont"\n[silences.id]\nfield = "id"\nvalues = [1]').silences

    with pytest.raises(SettingsError, match="'typo': the model has no field 'amuont', it has amount"):
        silences.require_fields(["amount"])


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("x = ", "not valid TOML"),
        ("", r"must hold tables named \[silences.NAME\]"),
        ("silences = 1", r"must hold tables named \[silences.NAME\]"),
        ("[silence.x]\nfield = 'a'", r"must hold tables named \[silences.NAME\]"),
        ("silences.x = 1", "silence 'x': must be a table"),
        ("[silences.x]", "silence 'x': would silence every alert"),
        ("[silences.x]\nfeild = 'a'", "silence 'x': unknown key 'feild', allowed are field, values"),
        ("[silences.x]\nfield = 1", "silence 'x': field = 1"),
        ("[silences.x]\nvalues = [1]", "silence 'x': values and direction need a field"),
        ("[silences.x]\nfield = 'a'\nvalues = 1", "silence 'x': values = 1"),
        ("[silences.x]\nfield = 'a'\nvalues = []", r"silence 'x': values = \[\]"),
        ("[silences.x]\nfield = 'a'\nvalues = [[1]]", "silence 'x': values"),
        ("[silences.x]\nfield = 'a'\ndirection = 'up'", "silence 'x': direction = 'up': must be above or below"),
        ("[silences.x]\ndaily = '8-9'", "silence 'x': daily = '8-9'"),
        ("[silences.x]\ndaily = '24:00-06:00'", "silence 'x': daily"),
        ("[silences.x]\ndaily = '08:00-08:00'", "silence 'x': daily = '08:00-08:00': is empty"),
        ("[silences.x]\ndaily = 8", "silence 'x': daily = 8"),
        (
            "[silences.x]\nfrom = 2026-05-01T00:00:00",
            "silence 'x': from = 2026-05-01 00:00:00: must be a time with an offset",
        ),
        ("[silences.x]\nuntil = 'soon'", "silence 'x': until = soon"),
        ("[silences.x]\nfrom = 2026-05-02\nuntil = 2026-05-01", "silence 'x': from must lie before until"),
    ],
)
def test_a_broken_file_is_refused_by_its_name_and_the_silence(tmp_path: Path, text: str, message: str) -> None:
    path = tmp_path / "silences.toml"
    path.write_text(text, encoding="utf-8")

    with pytest.raises(SettingsError, match=message) as caught:
        load_silences(path)
    assert str(path) in str(caught.value)


def test_a_missing_file_is_named(tmp_path: Path) -> None:
    with pytest.raises(SettingsError, match=r"none\.toml: No such file"):
        load_silences(tmp_path / "none.toml")
