"""How a fit goes: what is refused, what is done instead and said, and what each building block does."""

from collections.abc import Callable
from typing import Any

import numpy as np
import pytest
import torch

from devtools import traffic
from worker.errors import DataError, SettingsError
from worker.features.learned import MISSING_ID
from worker.features.schema import parse_schema
from worker.model.learn import fit_bundle
from worker.model.network import fit
from worker.model.network.autoencoder import Autoencoder, Layout, Rows
from worker.model.network.loss import LOSSES, REDUCTIONS, MissingPattern, corrupt, training_loss
from worker.model.presets import PRESETS, preset_options
from worker.model.store.bundle import Bundle
from worker.pipeline import Model, Pipeline

PIXEL = parse_schema('[fields.p]\nkind = "numeric"\nrange = [0, 16]\n[fields.q]\nkind = "numeric"')


def quick(name: str, **values: Any) -> dict[str, Any]:
    """Few passes, and a latent that fits a narrow input."""
    length: dict[str, Any] = {"steps": 40} if name == "denoising" else {"epochs": 2}
    return {**length, **({"latent": 2} if "latent" in PRESETS[name].values else {}), **values}


def fitted(rows: list[dict[str, Any]], name: str = "digits", **values: Any) -> Bundle:
    return fit_bundle(PIXEL, rows, preset_options(name, **quick(name, **values)), created_at=traffic.CREATED)


def pixels(count: int = 100, outside: int = 0) -> list[dict[str, Any]]:
    rng = np.random.default_rng(0)
    rows = [{"p": float(rng.uniform(0, 16)), "q": float(rng.normal())} for _ in range(count)]
    return [{**row, "p": 40.0} for row in rows[:outside]] + rows[outside:]


# --- bad input


def test_values_outside_a_known_range_are_an_error_that_names_field_share_and_range() -> None:
    with pytest.raises(DataError, match=r"field 'p': 10% of the records lie outside its range \[0, 16\].*at most 5%"):
        fitted(pixels(outside=10))


def test_a_few_values_outside_a_known_range_are_set_to_its_ends_and_that_is_said() -> None:
    bundle = fitted(pixels(outside=3))

    assert bundle.report["notes"][0] == "field 'p': 3.00% of the records lie outside its range; fitted at its ends"
    assert np.isfinite(bundle.training).all()
    assert sorted(bundle.training.tolist(), reverse=True)[:3] == pytest.approx(
        [float(bundle.training[-1])] * 3, rel=0.2
    )


def test_outputs_without_a_bound_take_values_outside_a_range_as_they_are() -> None:
    assert fitted(pixels(outside=10), "pyod", hidden=(8, 2)).report["notes"] == []


@pytest.mark.parametrize("name", [name for name in PRESETS if name != "denoising"])
def test_fewer_rows_than_a_batch_are_one_batch_and_that_is_said(name: str) -> None:
    bundle = fitted(pixels(40), name, batch=1000)
    rows = bundle.report["rows"]

    assert (
        f"[model.options] batch = 1000: there are {rows} rows to fit, so a batch is all of them"
        in bundle.report["notes"]
    )
    assert bundle.report["steps"] == 2


def test_a_batch_of_one_row_is_left_out_where_its_variance_is_needed() -> None:
    assert fitted(pixels(33), "pyod", batch=16, drop_last=False).report["steps"] == 4
    assert fitted(pixels(33), "digits", batch=16).report["steps"] == 6


@pytest.mark.parametrize("name", PRESETS)
def test_a_constant_column_is_no_obstacle_and_another_value_in_it_stands_out(name: str) -> None:
    rows = [{**row, "q": 7.0} for row in pixels()]
    bundle = fitted(rows, name)
    scorer = Pipeline(Model(bundle), threshold_factory=traffic.plain_threshold())

    def score(row: dict[str, Any]) -> float:
        import orjson

        from worker.records import Message

        return float(scorer.process([Message("in", 0, 0, 0, None, orjson.dumps(row))]).scores.score[0])

    assert np.isfinite(bundle.training).all()
    assert score({"p": 8.0, "q": 70.0}) > 2 * score({"p": 8.0, "q": 7.0})


def test_a_loss_that_is_not_finite_is_an_error_that_names_the_setting_to_lower() -> None:
    with pytest.raises(DataError, match=r"not finite.*\[model.learning_rate\] \(1.0; allowed is above 0 to 1\)"):
        fitted(pixels(), "pyramid", optimizer="sgd", learning_rate=1.0, epochs=60, batch=10)


def test_a_latent_that_could_copy_its_input_is_said() -> None:
    assert "is not narrower than the 4 input columns" in fitted(pixels(), "pyod", hidden=(8, 6)).report["notes"][0]
    assert fitted(pixels(), "pyod", hidden=(8, 2)).report["notes"] == []


def test_weights_of_a_field_that_is_not_there_are_refused_with_the_known_ones() -> None:
    with pytest.raises(SettingsError, match=r"\[model.field_weights\] names 'r': allowed are .*p, q"):
        fitted(pixels(), field_weights=(("r", 2.0),))


def test_the_heavier_field_explains_more() -> None:
    rows = pixels()
    rows[0] = {"p": 0.0, "q": -3.0}
    light, heavy = (fitted(rows, "digits", field_weights=(("q", weight),)) for weight in (0.01, 100.0))

    def named_first(bundle: Bundle) -> str:
        model = Model(bundle)
        imputed = np.array([[16.0, 30.0]], np.float32)
        return model.explainer.explain(imputed, np.array([[1]], np.int32), [{"p": 256.0, "q": 60.0}])[0][0].field

    assert (named_first(light), named_first(heavy)) == ("p", "q")


# --- building blocks


@pytest.mark.parametrize("reduction", REDUCTIONS)
@pytest.mark.parametrize("kind", LOSSES)
@pytest.mark.parametrize("widths", [(), (4, 3)])
def test_a_loss_is_what_its_name_and_its_reduction_say(reduction: str, kind: str, widths: tuple[int, ...]) -> None:
    layout = Layout(3, widths)
    options = preset_options("digits", latent=2, hidden=(3,), loss=kind, reduction=reduction)
    torch.manual_seed(0)
    network = Autoencoder(layout, options.architecture(layout.columns)).eval()
    category_ids = (
        torch.stack([torch.randint(width, (7,)) for width in widths], 1) if widths else torch.zeros(7, 0).long()
    )
    rows = Rows(torch.rand(7, 3), category_ids)
    x = torch.cat([rows.numeric, *(torch.eye(width)[category_ids[:, j]] for j, width in enumerate(widths))], 1)
    with torch.no_grad():
        answer = torch.cat(network.outputs(network.encode(rows.numeric, rows.category_ids)), 1)
        errors = {
            "squared": (answer - x) ** 2,
            "absolute": (answer - x).abs(),
            "cross-entropy": -(x * answer.log() + (1 - x) * (1 - answer).log()),
        }[kind]
        expected = {"mean": errors.mean(), "fields": errors.sum(1).mean(), "sum": errors.sum()}[reduction]
        loss = training_loss(network, rows, loss=kind, reduction=reduction)

    assert loss.item() == pytest.approx(expected.item(), rel=1e-5)


@pytest.mark.parametrize(
    ("kind", "inside"),
    [
        ("gaussian", lambda change, _: 0.6 < change.std() < 0.75 and 0.08 < change.abs().median() < 0.2),
        ("uniform", lambda change, _: 1 < change.abs().max() <= 2),
        ("mask", lambda _, noisy: 0.2 < (noisy == 0).float().mean() < 0.3),
    ],
)
def test_numbers_are_corrupted_by_the_kind_and_level_that_is_set(
    kind: str, inside: Callable[[torch.Tensor, torch.Tensor], bool]
) -> None:
    noise = 0.5 if kind == "mask" else 1.0
    rows = Rows(torch.randn(4000, 5) + 9, torch.zeros(4000, 1).long())

    noisy, category_ids = corrupt(rows, rows, torch.Generator().manual_seed(0), kind=kind, noise=noise, swap=0.0)

    assert inside(noisy - rows.numeric, noisy)
    assert (category_ids == rows.category_ids).all()


def test_numbers_are_swapped_in_half_of_the_rows_and_ids_in_all() -> None:
    rows = Rows(torch.zeros(4000, 50), torch.ones(4000, 50).long())
    others = Rows(torch.ones(4000, 50), torch.full((4000, 50), 2))

    numeric, ids = corrupt(rows, others, torch.Generator().manual_seed(0), kind="mask", noise=0.0, swap=0.9)

    assert 0.45 < (numeric == 1).any(1).float().mean() < 0.51
    assert (ids != 1).any(1).float().mean() > 0.95


def test_rare_fields_are_left_out_of_some_rows_as_a_whole_and_what_all_have_stays() -> None:
    numeric, ids = torch.full((4000, 3), 5.0), torch.full((4000, 2), 9)
    pattern = MissingPattern(  # a common number; a rare field of two numbers and a category; a half rare category
        share=torch.tensor([1.0, 0.01, 0.01, 0.01, 0.5]),
        field=torch.tensor([0, 1, 1, 1, 2]),
        imputed=torch.tensor([torch.nan, 0.25, 0.5]),
        optional=torch.tensor([True, True]),
    )

    left, left_ids = pattern.without_some(Rows(numeric, ids), torch.Generator().manual_seed(0))

    rare = left_ids[:, 0] == MISSING_ID
    assert (left[:, 0] == 5).all()
    assert set(map(tuple, left[rare].tolist())) == {(5.0, 0.25, 0.5)}
    assert set(map(tuple, left[~rare].tolist())) == {(5.0, 5.0, 5.0)}
    assert 0.45 < rare.float().mean() < 0.55
    assert 0.2 < (left_ids[:, 1] == MISSING_ID).float().mean() < 0.3


@pytest.mark.parametrize("name", PRESETS)
def test_the_same_seed_gives_the_same_version_and_another_one_another(name: str) -> None:
    first, again, other = (fitted(pixels(), name, seed=seed) for seed in (1, 1, 2))

    assert first.version == again.version != other.version


def test_epochs_go_through_every_row_and_steps_bound_them() -> None:
    options = preset_options("digits", epochs=3, batch=10)
    batches = list(fit._batches(25, options, torch.Generator().manual_seed(0)))

    assert [len(chosen) for chosen, _ in batches] == [10, 10, 5] * 3
    assert [is_measured for _, is_measured in batches] == [False, False, True] * 3
    for epoch in range(3):
        rows = torch.cat([chosen for chosen, _ in batches[3 * epoch : 3 * epoch + 3]])
        assert sorted(rows.tolist()) == list(range(25))
    bounded = list(fit._batches(25, preset_options("digits", epochs=3, batch=10, steps=4), torch.Generator()))
    assert (len(bounded), bounded[-1][1]) == (4, True)
    dropped = list(fit._batches(25, preset_options("digits", epochs=2, batch=10, drop_last=True), torch.Generator()))
    assert [len(chosen) for chosen, _ in dropped] == [10] * 4


def test_patience_keeps_the_best_weights_and_ends_early_without_it_the_last_stay() -> None:
    patient = fitted(pixels(), "halfway", epochs=200, learning_rate=0.3, patience=5).report
    stubborn = fitted(pixels(), "halfway", epochs=40, learning_rate=0.3).report

    assert patient["held_out_loss"] == min(loss for _, loss in patient["losses"])
    assert len(patient["losses"]) < 200
    assert stubborn["held_out_loss"] == stubborn["losses"][-1][1]
    assert len(stubborn["losses"]) == 40


def test_a_fit_can_be_compiled_and_where_that_fails_the_setting_is_named(monkeypatch: pytest.MonkeyPatch) -> None:
    def broken(*_: object, **__: object) -> None:
        raise RuntimeError("no compiler found")

    plain = fitted(pixels(), "digits")
    monkeypatch.setattr(torch, "compile", lambda function: function)
    assert fitted(pixels(), "digits", compile=True).version == plain.version
    monkeypatch.setattr(torch, "compile", lambda _: broken)
    with pytest.raises(
        SettingsError, match=r"\[model.options\] compile = True.*no compiler found.*allowed is true or false"
    ):
        fitted(pixels(), "digits", compile=True)
