import pytest

from worker.texts import did_you_mean, event_time_text, nearest, parse_iso_time, rfc3339


def test_times_are_written_and_read_as_milliseconds_in_utc() -> None:
    for milliseconds in (0, 1, -86_400_000, 1_772_323_200_123):
        assert parse_iso_time(rfc3339(milliseconds)) == milliseconds


def test_a_missing_event_time_and_one_beyond_year_9999_have_no_text() -> None:
    assert event_time_text(-1) is None
    assert event_time_text(10**15) is None


def test_a_text_that_is_no_time_is_refused() -> None:
    with pytest.raises(ValueError, match="yesterday"):
        parse_iso_time("yesterday")


def test_only_a_name_that_is_near_is_suggested() -> None:
    assert did_you_mean("xyz", ["amount"]) == ""
    assert nearest("xyz", ["amount"], min_likeness=0.0) == "amount"
