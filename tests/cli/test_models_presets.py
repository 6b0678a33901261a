"""`worker models presets`: what can be named, where it comes from, its layers for an input width."""

import shlex

import pytest

from worker.cli import main
from worker.model.presets import PRESETS, RANGES
from worker.processes.wiring import fit_options
from worker.settings import load_settings


def said(capsys: pytest.CaptureFixture[str], *arguments: str) -> str:
    assert main(["models", "presets", *arguments]) == 0
    return capsys.readouterr().out


def test_every_preset_is_printed_with_its_source_and_its_layers_for_a_width(capsys: pytest.CaptureFixture[str]) -> None:
    text = said(capsys, "--width", "41")

    for name in PRESETS:
        assert name in text
        assert PRESETS[name].source in text
    assert "41-64-32-64-41" in text
    assert "41-32-16-8-8-8-16-32-41" in text
    assert "denoising (WORKER_MODEL__PRESET)" in text


def test_one_preset_is_printed_with_every_value_as_it_is_set(capsys: pytest.CaptureFixture[str]) -> None:
    text = said(capsys, "pyod")

    for value in ("WORKER_MODEL__HIDDEN=64,32", "WORKER_MODEL__EPOCHS=10", '"dropout": [0.2]', '"weight_decay": 1e-05'):
        assert value in text
    assert "contamination 0.1" in text
    assert "denoising" not in text


@pytest.mark.parametrize("name", PRESETS)
def test_what_is_printed_for_a_preset_makes_it_of_another_one(name: str, capsys: pytest.CaptureFixture[str]) -> None:
    lines = [shlex.split(line)[0].partition("=") for line in said(capsys, name).splitlines() if "  WORKER_" in line]
    environment = {variable: value for variable, _, value in lines if value}

    made = fit_options(load_settings({"WORKER_MODEL__PRESET": "denoising", **environment}, dotenv="").model, 0)

    values = {
        option: getattr(made, option) for option, value in PRESETS[name].values.items() if value and option in RANGES
    }
    assert values == {option: PRESETS[name].values[option] for option in values}


def test_a_width_that_a_preset_can_not_serve_is_said_in_its_place(capsys: pytest.CaptureFixture[str]) -> None:
    assert "none for 20 input columns: WORKER_MODEL__LATENT = 32: allowed is 1 to 19" in said(
        capsys, "deep", "--width", "20"
    )


def test_an_unknown_preset_is_refused_with_the_known_ones(
    capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    assert main(["models", "presets", "pyot"]) == 2
    assert "denoising, pyod, pyramid" in capsys.readouterr().err
    monkeypatch.setenv("WORKER_MODEL__PRESET", "pyot")
    assert main(["models", "presets"]) == 1
    assert "WORKER_MODEL__PRESET = 'pyot': allowed is denoising, pyod, pyramid" in capsys.readouterr().err
