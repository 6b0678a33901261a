"""The documents in deploy/ are the ones that the code publishes."""

from pathlib import Path

import pytest

from devtools.contracts import documents

DEPLOY = Path(__file__).parents[2] / "deploy"


@pytest.mark.parametrize("name", documents())
def test_deploy_holds_the_current_documents(name: str) -> None:
    assert (DEPLOY / name).read_bytes() == documents()[name], "run: python -m devtools.contracts deploy/"
