"""The only reader of the environment: one frozen tree of settings, all with defaults that work.

`load_settings()` reads it; `Settings()` is the defaults. Classes below the command line take flat keyword values and
never see a `Settings`.
"""

from worker.settings.load import allowed, debug_and_secrets, leaves, load_settings, shown, variable_of
from worker.settings.oauth import OauthSettings
from worker.settings.registry import RegistrySettings
from worker.settings.tree import (
    AlertSettings,
    BatchSettings,
    ModelSettings,
    Settings,
    ThresholdSettings,
    TrainSettings,
)

__all__ = [
    "AlertSettings",
    "BatchSettings",
    "ModelSettings",
    "OauthSettings",
    "RegistrySettings",
    "Settings",
    "ThresholdSettings",
    "TrainSettings",
    "allowed",
    "debug_and_secrets",
    "leaves",
    "load_settings",
    "shown",
    "variable_of",
]
