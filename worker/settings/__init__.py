"""The only reader of the environment: one frozen tree of settings, all with defaults that work.

`load_settings()` reads it; `Settings()` is the defaults. Classes below the command line take flat keyword values and
never see a `Settings`.
"""

from worker.settings.alerts import AlertSettings
from worker.settings.load import known_secrets, load_settings, variable_names, variable_of, wants_debug
from worker.settings.model import ModelSettings
from worker.settings.process import BreakerSettings, HttpSettings, LogSettings
from worker.settings.ranges import leaves, shown
from worker.settings.table import settings_table
from worker.settings.train import TrainSettings
from worker.settings.tree import (
    BatchSettings,
    KafkaSettings,
    Settings,
    ThresholdSettings,
)

__all__ = [
    "AlertSettings",
    "BatchSettings",
    "BreakerSettings",
    "HttpSettings",
    "KafkaSettings",
    "LogSettings",
    "ModelSettings",
    "Settings",
    "ThresholdSettings",
    "TrainSettings",
    "known_secrets",
    "leaves",
    "load_settings",
    "settings_table",
    "shown",
    "variable_names",
    "variable_of",
    "wants_debug",
]
