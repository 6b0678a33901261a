"""Things by name, that can be added from outside."""

import pytest

from worker.errors import SettingsError
from worker.registry import Registry


def test_entries_stand_in_the_order_of_their_registration() -> None:
    registry: Registry[int] = Registry("number")
    registry.register("one", 1)
    registry.register("two", 2)

    assert tuple(registry) == ("one", "two")
    assert registry["two"] == 2
    assert "one" in registry


def test_a_name_is_taken_once() -> None:
    registry: Registry[int] = Registry("number")
    registry.register("one", 1)

    with pytest.raises(ValueError, match="there is a number 'one' already"):
        registry.register("one", 2)


def test_an_unknown_name_is_refused_with_the_nearest_one() -> None:
    registry: Registry[int] = Registry("number")
    registry.register("three", 3)

    with pytest.raises(SettingsError, match=r"unknown number 'thre' \(did you mean 'three'\?\); there are three"):
        registry["thre"]


def test_an_entry_can_be_taken_out_again() -> None:
    registry: Registry[int] = Registry("number")
    registry.register("one", 1)
    registry.pop("one")

    assert tuple(registry) == ()
