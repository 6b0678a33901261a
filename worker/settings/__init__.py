"""The only reader of the environment: one frozen tree of settings, all with defaults that work.

`load_settings()` reads it; `Settings()` is the defaults. Classes below the command line take flat keyword values and
never see a `Settings`.
"""

from worker.settings.describe import leaves, shown, variable_of
from worker.settings.load import debug_and_secrets, load_settings
from worker.settings.model import ModelSettings
from worker.settings.tree import AlertSettings, BatchSettings, Settings, ThresholdSettings, TrainSettings

__all__ = [
    "AlertSettings",
    "BatchSettings",
    "ModelSettings",
    "Settings",
    "ThresholdSettings",
    "TrainSettings",
    "debug_and_secrets",
    "leaves",
    "load_settings",
    "shown",
    "variable_of",
]
