"""The command line speaks of variables and commands; the rooms below do not know them."""

from worker.cli.hints import HINTS, message_of
from worker.errors import Hint, SettingsError, StoreError


def test_a_path_of_a_setting_becomes_its_variable_and_other_brackets_stay() -> None:
    text = "[model.hidden] = [8]: see [fields.amount], [device] and records[0]"

    assert message_of(text) == "WORKER_MODEL__HIDDEN = [8]: see [fields.amount], WORKER_DEVICE and records[0]"


def test_a_hint_becomes_a_command_at_the_end_of_the_message() -> None:
    error = StoreError("no model in models yet", hint=Hint.FIT_A_MODEL)

    assert message_of(error) == "no model in models yet; fit one with: worker train --once --from FILE"
    assert message_of(SettingsError("[seed] = -1: allowed is 0 to 9")) == "WORKER_SEED = -1: allowed is 0 to 9"


def test_every_hint_has_words() -> None:
    assert set(HINTS) == set(Hint)
