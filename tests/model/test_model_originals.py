"""Each preset against its original: the published class itself where there is one, else its formulas in plain numpy."""

import warnings
from collections.abc import Iterator
from dataclasses import replace
from functools import cache
from typing import Any

import numpy as np
import orjson
import pytest
import torch
from torch import nn
from torch.nn import functional

from devtools import traffic
from tests.model import reference
from worker.features.schema import parse_schema
from worker.features.vectorize import Vectorizer
from worker.formats.base import Decoded
from worker.model.learn import fit_bundle
from worker.model.network.autoencoder import Autoencoder, Rows
from worker.model.network.loss import training_loss
from worker.model.presets import PRESETS, preset_options
from worker.model.scoring.score import SCORES
from worker.model.store.bundle import Bundle
from worker.pipeline import Model, Pipeline
from worker.processes.wiring import threshold_factory
from worker.records import FloatArray, Message
from worker.settings import ThresholdSettings

FIELDS = 6
SCHEMA = "\n".join(f'[fields.x{j}]\nkind = "numeric"' for j in range(FIELDS))


def table(count: int, seed: int) -> FloatArray:
    """Correlated numbers of different size, a few of them far out."""
    rng = np.random.default_rng(seed)
    x = rng.normal(size=(count, 3)) @ rng.normal(size=(3, FIELDS)) * 10.0 ** np.arange(FIELDS) + rng.normal(size=FIELDS)
    x[::40] *= 3
    return x


def records(x: FloatArray) -> list[dict[str, float]]:
    return [{f"x{j}": float(value) for j, value in enumerate(row)} for row in x]


def messages(rows: list[dict[str, Any]]) -> list[Message]:
    return [Message("in", 0, offset, 0, None, orjson.dumps(row)) for offset, row in enumerate(rows)]


def pipeline(bundle: Bundle) -> Pipeline:
    """As `worker run` makes it by default: the rule is the model's own."""
    return Pipeline(Model(bundle), threshold_factory=threshold_factory(ThresholdSettings()))


@cache
def mixed(name: str, **_: Any) -> Bundle:
    """A preset fitted briefly on the tests' mixed traffic."""
    values: dict[str, Any] = {"steps": 60} if name == "denoising" else {"epochs": 3}
    if PRESETS[name].values.get("latent"):
        values["latent"] = 5
    return fit_bundle(traffic.schema(), traffic.rows(500), preset_options(name, **values), created_at=traffic.CREATED)


def encoded(bundle: Bundle, rows: list[dict[str, Any]]) -> tuple[Any, Any]:
    vectors = Vectorizer(bundle.fitted).transform(Decoded.of_rows(rows))
    return vectors.numeric, vectors.category_ids


# --- PyOD


@pytest.fixture(scope="module")
def pyod() -> Iterator[Any]:
    """PyOD's own autoencoder, fitted by itself."""
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # its imports are not ours to repair
        from pyod.models.auto_encoder import AutoEncoder

        model = AutoEncoder(contamination=0.07, epoch_num=3, verbose=0, random_state=3, device="cpu")
        with torch.random.fork_rng():
            model.fit(table(700, 1))
        yield model


def copy_weights(theirs: Any, ours: Autoencoder) -> None:
    """PyOD's weights into a network of the same layers; the constant block of missing fields is answered exactly."""
    blocks = [*theirs.encoder, *list(theirs.decoder)[:-1]]
    linears = [ours.first, *(layer for layer in ours.hidden if isinstance(layer, nn.Linear))]
    norms = [layer for layer in ours.hidden if isinstance(layer, nn.BatchNorm1d)]
    for block, linear, norm in zip(blocks, linears, norms, strict=True):
        linear.load_state_dict(block.linear.state_dict())
        norm.load_state_dict(block.bn.state_dict())
    ours.out_numeric.load_state_dict(theirs.decoder[-1].state_dict())
    with torch.no_grad():
        ours.table.zero_()
        ours.out_categories.weight.zero_()
        ours.out_categories.bias.copy_(torch.tensor([0.0, 1.0]))


@pytest.fixture(scope="module")
def ours(pyod: Any) -> Bundle:
    """The preset on the same rows, with PyOD's weights."""
    options = preset_options("pyod", epochs=1, rule_value=0.07)
    bundle = fit_bundle(parse_schema(SCHEMA), records(table(700, 1)), options, created_at=traffic.CREATED)
    copy_weights(pyod.model, bundle.network)
    training = bundle.scorer().score(*encoded(bundle, records(table(700, 1))))
    return replace(bundle, training=np.sort(training))


def test_pyods_own_class_gives_the_same_scores_threshold_and_labels_on_its_training_rows(
    pyod: Any, ours: Bundle
) -> None:
    outcome = pipeline(ours).process(messages(records(table(700, 1))))

    np.testing.assert_allclose(outcome.scores.score, pyod.decision_scores_, rtol=1e-5)
    np.testing.assert_allclose(outcome.scores.threshold, pyod.threshold_, rtol=1e-5)
    assert outcome.scores.alert.astype(int).tolist() == pyod.labels_.tolist()
    assert pyod.labels_.sum() == 49


def test_pyods_own_class_gives_the_same_scores_and_labels_on_new_rows(pyod: Any, ours: Bundle) -> None:
    fresh = table(300, 2) * 1.5

    outcome = pipeline(ours).process(messages(records(fresh)))

    np.testing.assert_allclose(outcome.scores.score, pyod.decision_function(fresh), rtol=1e-5)
    assert outcome.scores.alert.astype(int).tolist() == pyod.predict(fresh).tolist()
    assert 0 < len(outcome.alerts) < 300


def test_pyods_scaling_is_the_standard_one(pyod: Any, ours: Bundle) -> None:
    numeric, _ = encoded(ours, records(table(700, 1)))

    np.testing.assert_allclose(numeric, (table(700, 1) - pyod.X_mean) / (pyod.X_std + 1e-8), rtol=1e-5, atol=1e-6)


# --- every preset by its formulas


def by_definition(bundle: Bundle, numeric: Any, category_ids: Any) -> Any:
    """Scores by the bundle's kind and weights, before any scaling, float64 (B,)."""
    weights = dict(bundle.score.weights)
    if bundle.score.kind == "relative":
        return reference.relative_score(bundle, numeric, category_ids, weights)
    of_columns = [weights.get(name, 1.0) for name in bundle.fitted.numeric_fields]
    for name, width in zip(bundle.fitted.category_fields, bundle.fitted.widths, strict=True):
        of_columns += [weights.get(name, 1.0)] * width
    x, answer, _ = reference.forward(bundle.network, numeric, category_ids)
    return reference.raw_score(bundle.score.kind, x, answer, len(bundle.fields), np.array(of_columns))


@pytest.mark.parametrize("name", PRESETS)
def test_the_scores_of_a_preset_equal_its_formula_over_real_one_hot_rows(name: str) -> None:
    bundle = mixed(name)
    rows = traffic.rows(300, seed=5)
    numeric, category_ids = encoded(bundle, rows)

    expected = by_definition(bundle, numeric, category_ids)
    if bundle.score.low is not None and bundle.score.high is not None:
        expected = np.maximum(expected - bundle.score.low, 0) / (bundle.score.high - bundle.score.low)

    np.testing.assert_allclose(pipeline(bundle).process(messages(rows)).scores.score, expected, rtol=1e-5, atol=1e-6)


@pytest.mark.parametrize("name", ["denoising", "pyod", "digits", "vae"])
@pytest.mark.parametrize("kind", [name for name in SCORES if not SCORES[name].needs_variational])
@pytest.mark.parametrize("weighted", [False, True])
def test_every_kind_of_score_equals_its_definition(name: str, kind: str, weighted: bool) -> None:
    bundle = mixed(name)
    weights = (("amount", 3.0), ("channel", 0.25)) if weighted else ()
    bundle = replace(bundle, score=replace(bundle.score, kind=kind, weights=weights))
    numeric, category_ids = encoded(bundle, traffic.rows(200, seed=5))

    expected = by_definition(bundle, numeric, category_ids)

    np.testing.assert_allclose(bundle.scorer().score(numeric, category_ids), expected, rtol=1e-5, atol=1e-6)


@pytest.mark.parametrize("name", PRESETS)
@pytest.mark.parametrize("size", [1, 100, 513])
def test_the_size_of_a_batch_changes_no_score_of_any_preset(name: str, size: int) -> None:
    bundle = mixed(name)
    sent = messages(traffic.rows(1100, seed=6))
    whole = pipeline(bundle).process(sent).scores

    stream, count = pipeline(bundle), 40 if size == 1 else len(sent)
    parts = [stream.process(sent[start : start + size]).scores for start in range(0, count, size)]

    assert np.concatenate([part.score for part in parts]).tolist() == whole.score[:count].tolist()
    assert np.concatenate([part.threshold for part in parts]).tolist() == whole.threshold[:count].tolist()


@pytest.mark.parametrize("name", PRESETS)
def test_an_explanation_speaks_the_records_own_units_whatever_the_preset(name: str) -> None:
    outcome = pipeline(mixed(name)).process(traffic.messages(600))
    odd = next(alert for alert in outcome.alerts[::-1] if alert.message.offset % 50 == 49)
    reason = next(reason for reason in odd.explanation if reason.field == "amount")

    assert reason.observed == 5e6
    assert reason.expected != 5e6
    assert reason.typical is not None
    assert 0 < sum(reason.share for reason in odd.explanation) <= 1.001


# --- pyramid


def test_the_score_of_a_pyramid_goes_from_0_to_1_over_its_training_records_and_beyond_1_for_worse_ones() -> None:
    options = preset_options("pyramid", latent=2, epochs=4)
    bundle = fit_bundle(parse_schema(SCHEMA), records(table(200, 1)), options, created_at=traffic.CREATED)
    x, answer, _ = reference.forward(bundle.network, *encoded(bundle, records(table(200, 1))))
    errors = np.abs(x - answer).sum(1)
    low, high = errors.min(), errors.max()
    far = records(table(200, 1)[errors.argmax()][None] * 20)
    x, answer, _ = reference.forward(bundle.network, *encoded(bundle, far))

    assert bundle.training[[0, -1]] == pytest.approx([0, 1], abs=1e-5)
    np.testing.assert_allclose(bundle.training, np.sort((errors - low) / (high - low)), rtol=1e-4, atol=1e-5)
    outcome = pipeline(bundle).process(messages(far))
    assert outcome.scores.score[0] == pytest.approx((np.abs(x - answer).sum() - low) / (high - low), rel=1e-5)
    assert outcome.scores.score[0] > 1
    assert outcome.scores.threshold[0] == 0.5
    assert len(outcome.alerts) == 1


def test_a_pyramid_fits_whole_batches_only() -> None:
    bundle = fit_bundle(
        parse_schema(SCHEMA), records(table(200, 1)), preset_options("pyramid", latent=2, epochs=4), created_at=""
    )

    assert bundle.report["steps"] == 4 * (200 // 64)


# --- halfway, deep


def test_halfway_measures_its_held_out_loss_after_every_epoch() -> None:
    options = preset_options("halfway", latent=3, epochs=5)
    bundle = fit_bundle(traffic.schema(), traffic.rows(400), options, created_at=traffic.CREATED)
    report, kind = bundle.report, bundle.network.architecture
    columns = bundle.network.layout.columns

    assert kind.hidden == ((columns + 3) // 2, 3, (columns + 3) // 2)
    assert report["held_out_rows"] == 80
    assert [step for step, _ in report["losses"]] == [epoch * 7 for epoch in range(1, 6)]  # 320 rows, 50 a batch
    numeric, category_ids = encoded(bundle, traffic.rows(400))
    held = np.sort(np.random.default_rng(0).permutation(400)[:80])
    x, answer, _ = reference.forward(bundle.network, numeric[held], category_ids[held])
    assert report["held_out_loss"] == pytest.approx(((x - answer) ** 2).sum(1).mean(), rel=1e-5)
    assert report["losses"][-1][1] == report["held_out_loss"]


def test_deep_alerts_above_the_95_percent_quantile_of_its_training_errors() -> None:
    bundle = mixed("deep")
    rows = traffic.rows(500)
    x, answer, _ = reference.forward(bundle.network, *encoded(bundle, rows))
    errors = ((x - answer) ** 2).sum(1) / len(bundle.fields)

    outcome = pipeline(bundle).process(messages(rows))

    np.testing.assert_allclose(outcome.scores.threshold, np.quantile(errors, 0.95), rtol=1e-5)
    assert outcome.scores.alert.tolist() == (errors > np.quantile(errors, 0.95)).tolist()
    assert len(outcome.alerts) == 25


# --- vae


def plain_vae_loss(network: Autoencoder, rows: Rows, draw: torch.Tensor, beta: float, loss: str) -> torch.Tensor:
    """Kingma & Welling's loss over one-hot rows, each layer written out, in float64."""
    blocks = [functional.one_hot(rows.category_ids[:, j], width) for j, width in enumerate(network.layout.widths)]
    x = torch.cat([rows.numeric.double(), *blocks], 1)
    first = torch.cat([network.first.weight, network.table.T], 1).double()
    hidden = functional.relu(x @ first.T + network.first.bias)
    distribution = network.hidden[1](hidden)
    mean, log_variance = distribution[:, :5], distribution[:, 5:]
    latent = mean + torch.exp(log_variance / 2) * draw
    inner = functional.relu(network.hidden[2](latent))
    answer = torch.sigmoid(torch.cat([network.out_numeric(inner), network.out_categories(inner)], 1))
    if loss == "cross-entropy":
        error = functional.binary_cross_entropy(answer, x, reduction="none").sum(1)
    else:
        error = ((answer - x) ** 2).sum(1)
    divergence = -0.5 * (1 + log_variance - mean**2 - log_variance.exp()).sum(1)
    mean_loss: torch.Tensor = (error + beta * divergence).mean()
    return mean_loss


@pytest.mark.parametrize("loss", ["cross-entropy", "squared"])
@pytest.mark.parametrize("beta", [1.0, 0.3])
def test_loss_and_gradients_of_a_vae_equal_the_plain_ones_at_the_same_noise(loss: str, beta: float) -> None:
    bundle = mixed("vae")
    numeric, category_ids = encoded(bundle, traffic.rows(64, seed=7))
    rows = Rows(torch.from_numpy(numeric).double().clamp(0, 1), torch.from_numpy(category_ids.astype(np.int64)))
    draw = torch.randn(64, 5, generator=torch.Generator().manual_seed(0), dtype=torch.float64)
    network = Autoencoder(bundle.network.layout, bundle.network.architecture)
    network.load_state_dict(bundle.network.state_dict())
    network.double()

    ours = training_loss(network, rows, loss=loss, reduction="fields", beta=beta, draw=draw)
    gradients = torch.autograd.grad(ours, list(network.parameters()))
    theirs = plain_vae_loss(network, rows, draw, beta, loss)
    plain = torch.autograd.grad(theirs, list(network.parameters()))

    assert ours.item() == pytest.approx(theirs.item(), rel=1e-9)
    for mine, other in zip(gradients, plain, strict=True):
        torch.testing.assert_close(mine, other, rtol=1e-7, atol=1e-9)


def test_scores_of_a_vae_do_not_depend_on_what_is_drawn() -> None:
    bundle = mixed("vae")
    numeric, category_ids = encoded(bundle, traffic.rows(100, seed=7))
    scores = []
    for seed in (1, 2):
        torch.manual_seed(seed)
        scores.append(bundle.scorer().score(numeric, category_ids).tolist())

    assert scores[0] == scores[1]


def test_the_divergence_of_a_vae_is_a_score_of_its_own() -> None:
    bundle = replace(mixed("vae"), score=replace(mixed("vae").score, kind="kl"))
    numeric, category_ids = encoded(bundle, traffic.rows(100, seed=7))
    mean, log_variance = (
        part.detach().double().numpy()
        for part in bundle.network.latent_distribution(torch.from_numpy(numeric), torch.from_numpy(category_ids))
    )
    expected = 0.5 * (mean**2 + np.exp(log_variance) - 1 - log_variance).sum(1)

    np.testing.assert_allclose(bundle.scorer().score(numeric, category_ids), expected, rtol=1e-4, atol=1e-6)
