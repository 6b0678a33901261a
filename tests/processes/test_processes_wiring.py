"""Settings become the thresholds and limits that they ask for."""

import dataclasses

import pytest

from devtools import traffic
from worker.formats.base import Decoder
from worker.formats.json_objects import JsonDecoder
from worker.model.network.options import SETTINGS, FitOptions, other_options
from worker.model.presets import PRESETS, preset_options
from worker.model.scoring.score import SCORES
from worker.processes.wiring import fit_options, make_decoder, max_batch_s, newest_rows, threshold_factory
from worker.records import Message
from worker.settings import ModelSettings, allowed, load_settings
from worker.thresholds.budget import AlertBudget, PartitionCount
from worker.thresholds.factory import ThresholdFactory, ThresholdRule
from worker.thresholds.partition import PartitionThreshold, Strictest
from worker.thresholds.quantile import InlierQuantile, SlidingQuantile

OVERRIDES = {
    "WORKER_MODEL__HIDDEN": "[16, 4]",
    "WORKER_MODEL__FIELD_WEIGHTS": '{"amount": 2}',
    "WORKER_MODEL__EPOCHS": "7",
    "WORKER_MODEL__OPTIONS": '{"batch_norm": false, "dropout": [0.5, 0.25], "reduction": "sum"}',
}


def threshold_of(factory: ThresholdFactory) -> PartitionThreshold:
    bundle = traffic.bundle()
    return factory.make(bundle.calibration, bundle.training, bundle.rule)


@pytest.mark.parametrize(
    ("environment", "policies"),
    [
        ({}, [InlierQuantile]),
        ({"WORKER_THRESHOLD__POLICY": "plain"}, [SlidingQuantile]),
        ({"WORKER_ALERTS__PER_DAY": "50"}, [AlertBudget]),
        ({"WORKER_ALERTS__PER_DAY": "50", "WORKER_THRESHOLD__QUANTILE": "0.99"}, [InlierQuantile, AlertBudget]),
        ({"WORKER_ALERTS__PER_DAY": "50", "WORKER_ALERTS__PER_HOUR": "5"}, [AlertBudget, AlertBudget]),
    ],
)
def test_a_budget_replaces_the_quantile_unless_both_are_set(environment: dict[str, str], policies: list[type]) -> None:
    settings = load_settings(environment, dotenv="")

    policy = threshold_of(threshold_factory(settings.threshold, settings.alerts)).policy

    parts = policy.policies if isinstance(policy, Strictest) else (policy,)
    assert [type(part) for part in parts] == policies


def test_a_budget_is_shared_by_the_partitions() -> None:
    settings = load_settings({"WORKER_ALERTS__PER_DAY": "80"}, dotenv="")

    policy = threshold_of(
        threshold_factory(settings.threshold, settings.alerts, partitions=PartitionCount(lambda: 4))
    ).policy

    assert isinstance(policy, AlertBudget)
    assert policy.alerts == 20


@pytest.mark.parametrize(
    ("environment", "seconds"),
    [
        ({}, 15.0),
        ({"WORKER_HTTP__STALL_S": "600"}, 30.0),
        ({"WORKER_HTTP__STALL_S": "600", "WORKER_KAFKA__DELIVERY_TIMEOUT_MS": "60000"}, 45.0),
        ({"WORKER_KAFKA__OPTIONS": '{"max_poll_interval_ms": 20000}'}, 5.0),
    ],
)
def test_a_batch_may_take_a_quarter_of_what_group_and_liveness_allow(
    environment: dict[str, str], seconds: float
) -> None:
    assert max_batch_s(load_settings(environment, dotenv="")) == seconds


@pytest.mark.parametrize(
    ("environment", "share"),
    [
        ({}, 0.005),
        ({"WORKER_THRESHOLD__RULE": "contamination"}, 0.1),
        ({"WORKER_THRESHOLD__RULE": "training-quantile", "WORKER_THRESHOLD__TRAINING_QUANTILE": "0.8"}, 0.2),
        ({"WORKER_THRESHOLD__RULE": "fixed", "WORKER_THRESHOLD__FIXED": "1e9"}, 0.0),
        ({"WORKER_ALERTS__PER_DAY": "50"}, 0.0),
        ({"WORKER_ALERTS__PER_DAY": "50", "WORKER_THRESHOLD__RULE": "contamination"}, 0.1),
    ],
)
def test_the_nominal_rate_of_alerts_is_that_of_the_rule(environment: dict[str, str], share: float) -> None:
    settings = load_settings(environment, dotenv="")

    bundle = traffic.bundle()

    rate = threshold_factory(settings.threshold, settings.alerts).nominal_rate(bundle.training, bundle.rule)

    assert rate == pytest.approx(share, abs=0.002)


@pytest.mark.parametrize(
    ("environment", "own", "rule"),
    [
        ({}, ThresholdRule(), ThresholdRule()),
        ({}, ThresholdRule("contamination", 0.2), ThresholdRule("contamination", 0.2)),
        ({"CONTAMINATION": "0.3"}, ThresholdRule("contamination", 0.2), ThresholdRule("contamination", 0.3)),
        ({"CONTAMINATION": "0.3"}, ThresholdRule(), ThresholdRule()),
        ({"RULE": "rolling"}, ThresholdRule("contamination", 0.2), ThresholdRule()),
        ({"RULE": "training-quantile"}, ThresholdRule("contamination", 0.2), ThresholdRule("training-quantile")),
        ({"RULE": "fixed", "FIXED": "0"}, ThresholdRule(), ThresholdRule("fixed", 0.0)),
        ({"FIXED": "0.7"}, ThresholdRule("fixed", 0.5), ThresholdRule("fixed", 0.7)),
    ],
)
def test_a_model_brings_its_rule_and_a_setting_overrides_it(
    environment: dict[str, str], own: ThresholdRule, rule: ThresholdRule
) -> None:
    named = {f"WORKER_THRESHOLD__{name}": value for name, value in environment.items()}

    assert threshold_factory(load_settings(named, dotenv="").threshold).rule_for(own) == rule


def test_every_value_of_a_preset_has_a_setting_that_overrides_it() -> None:
    elsewhere = {"seed", "rule", "rule_value"}
    others = {name for name, _, _ in other_options()}

    assert set(ModelSettings.model_fields) == {*SETTINGS, "options"}
    assert {*SETTINGS, *others, *elsewhere} == {field.name for field in dataclasses.fields(FitOptions)}
    for name in PRESETS:
        preset = fit_options(load_settings({"WORKER_MODEL__PRESET": name}, dotenv="").model, 3)
        assert preset == preset_options(name, seed=3)
    changed = load_settings({"WORKER_MODEL__PRESET": "pyod", **OVERRIDES}, dotenv="")
    assert fit_options(changed.model, 0) == preset_options(
        "pyod",
        hidden=(16, 4),
        batch_norm=False,
        dropout=(0.5, 0.25),
        field_weights=(("amount", 2.0),),
        epochs=7,
        reduction="sum",
    )


def test_the_settings_allow_what_the_registries_hold() -> None:
    assert allowed(ModelSettings.model_fields["preset"]) == str(PRESETS)
    assert allowed(ModelSettings.model_fields["score"]) == str(SCORES)
    assert {name: str(values) for name, values, _ in other_options()}["loss"] == "squared, absolute or cross-entropy"


@pytest.mark.parametrize(
    ("max_records", "max_bytes", "kept"),
    [(100, 10**6, 20), (7, 10**6, 7), (100, 1_000, 9), (100, 50, 0), (3, 1_000, 3)],
)
def test_of_a_long_history_the_end_is_learned_within_records_and_bytes(
    max_records: int, max_bytes: int, kept: int
) -> None:
    messages = [Message("t", 0, at, -1, None, b'{"at": %d, "wide": "%s"}' % (at, b"x" * 80)) for at in range(20)]

    rows = newest_rows([messages[:11], messages[11:]], JsonDecoder(), max_records, max_bytes)

    assert [row["at"] for row in rows] == list(range(20 - kept, 20))


def decoder_of(**variables: str) -> Decoder:
    return make_decoder(load_settings({f"WORKER_{name}": text for name, text in variables.items()}, dotenv="/none"))


@pytest.mark.parametrize("front", [b"", b"\0\0\0\0\1"])
@pytest.mark.parametrize(
    "value",
    [b'[{"a":1},{"a":2}]', b'{"a":1}{"a":2}', b'{"a":1}\n{"a":2}', b'{"rows":[{"a":1},{"a":2}]}'],
)
def test_the_setting_that_unfolds_an_array_unfolds_several_values_too(front: bytes, value: bytes) -> None:
    decoded = decoder_of(INPUT__UNFOLD="rows").decode([Message("in", 0, 7, 0, None, front + value)])

    assert decoded.rows == [{"a": 1}, {"a": 2}]
    assert decoded.rejects == []


def test_formats_get_what_the_settings_say_of_them() -> None:
    cells = decoder_of(KAFKA__FORMAT="csv", INPUT__COLUMNS="zip,shop", INPUT__DELIMITER=";")

    assert cells.parse(b"01067;a,b") == {"zip": "01067", "shop": "a,b"}
    assert decoder_of(KAFKA__FORMAT="csv", INPUT__DELIMITER="tab").parse(b"1,5\t2") == {
        "column_1": "1,5",
        "column_2": "2",
    }
    assert decoder_of(INPUT__NAN="null").parse(b'{"a": NaN}') == {"a": None}
    assert decoder_of(INPUT__ENVELOPE="none").parse(b'{"a": {"$oid": "x"}}') == {"a": {"$oid": "x"}}
