"""Settings of the sidecar trainer."""

from typing import Self

from pydantic import Field, model_validator
from pydantic_core import PydanticCustomError

from worker.settings.base import Group, Name


class TrainSettings(Group):
    """The sidecar trainer."""

    interval_s: float = Field(default=3_600, ge=1, le=2_592_000, description="seconds between two looks of the trainer")
    window_records: int = Field(
        default=100_000, ge=100, le=10_000_000, description="recent records that the trainer keeps"
    )
    min_records: int = Field(
        default=1_000, ge=10, le=10_000_000, description="fewer records than this are not learned from"
    )
    half_life_s: float = Field(
        default=86_400,
        ge=1,
        le=31_536_000,
        description="age at which half of the records have left the trainer's window, once it is full",
    )
    moved_looks: int = Field(
        default=6,
        ge=1,
        le=1_000,
        description="looks in a row at which a part of the ordinary traffic must have moved before a refit; more than "
        "a flood of anomalies lasts",
    )
    replaced_looks: int = Field(
        default=3,
        ge=2,
        le=1_000,
        description="looks in a row at which all traffic must have been replaced before the new one is ordinary; "
        "until then `worker models veto` keeps it out",
    )
    state_file: Name = Field(
        default="trainer-state.npz", description="file that keeps the trainer's window over a restart"
    )
    rehearsal_records: int = Field(
        default=5_000,
        ge=0,
        le=1_000_000,
        description="records that a model version keeps of those that it was fitted on, for later fits; 0 = none",
    )
    keep_versions: int = Field(
        default=10,
        ge=1,
        le=10_000,
        description="newest model versions to keep; beside them stay the current one, the two before it and held ones",
    )

    @model_validator(mode="after")
    def _window_holds_minimum(self) -> Self:
        if self.min_records > self.window_records:
            raise PydanticCustomError(
                "window",
                "WORKER_TRAIN__MIN_RECORDS = {least}: must not exceed WORKER_TRAIN__WINDOW_RECORDS = {window}",
                {"least": self.min_records, "window": self.window_records},
            )
        return self
