"""Settings of the trainer."""

from typing import Self

from pydantic import model_validator

from worker.settings.base import Group, Name, setting


class TrainSettings(Group):
    """The trainer beside the workers."""

    interval_s: float = setting(3_600, "seconds between two checks of the trainer", within=(1, 2_592_000))
    window_records: int = setting(100_000, "recent records that the trainer keeps", within=(100, 10_000_000))
    min_records: int = setting(1_000, "fewer records than this are not learned from", within=(10, 10_000_000))
    half_life_s: float = setting(
        86_400,
        "age at which half of the records have left the trainer's reservoir, once it is full",
        within=(1, 31_536_000),
    )
    drifted_checks: int = setting(
        6,
        "checks in a row at which a part of the normal traffic must have drifted before a refit; more than a flood of "
        "anomalies lasts",
        within=(1, 1_000),
    )
    replaced_checks: int = setting(
        3,
        "checks in a row at which all traffic must have been replaced before the new one is normal; until then "
        "`worker models veto` keeps it out",
        within=(2, 1_000),
    )
    state_file: Name = setting("trainer-state.npz", "file that keeps the trainer's reservoir over a restart")
    rehearsal_records: int = setting(
        5_000,
        "records that a model version keeps of those that it was fitted on, for later fits; 0 = none",
        within=(0, 1_000_000),
    )
    keep_versions: int = setting(
        10,
        "newest model versions to keep; beside them stay the current one, the two before it and held ones",
        within=(1, 10_000),
    )

    @model_validator(mode="after")
    def _window_holds_minimum(self) -> Self:
        if self.min_records > self.window_records:
            raise ValueError(
                f"WORKER_TRAIN__MIN_RECORDS = {self.min_records}: must not exceed WORKER_TRAIN__WINDOW_RECORDS = "
                f"{self.window_records}"
            )
        return self
