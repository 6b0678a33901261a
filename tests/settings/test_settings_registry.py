"""The schema registry's settings are checked as a whole."""

import pytest

from worker.errors import SettingsError
from worker.settings import load_settings


@pytest.mark.parametrize(
    ("variables", "message"),
    [
        ({"URL": "registry:8081"}, "WORKER_REGISTRY__URL = 'registry:8081': must be an https:// or http:// URL"),
        ({"URL": "http://me:pw0rd@registry"}, "WORKER_REGISTRY__URL holds a user: set WORKER_REGISTRY__USER"),
        ({"URL": "http://registry", "USER": "me", "TOKEN": "t"}, "WORKER_REGISTRY__USER and WORKER_REGISTRY__TOKEN"),
    ],
)
def test_what_does_not_go_together_is_named_without_a_secret(variables: dict[str, str], message: str) -> None:
    with pytest.raises(SettingsError) as caught:
        load_settings({f"WORKER_REGISTRY__{name}": text for name, text in variables.items()}, dotenv="/nonexistent")

    assert message in str(caught.value)
    assert "pw0rd" not in str(caught.value)


def test_its_password_and_token_are_secrets() -> None:
    names = {"WORKER_REGISTRY__URL": "https://registry/ccompat", "WORKER_REGISTRY__USER": "me"}
    settings = load_settings({**names, "WORKER_REGISTRY__PASSWORD": "pw0rd"}, dotenv="/nonexistent")

    assert settings.secrets() == ["pw0rd"]
    assert "pw0rd" not in str(settings)
