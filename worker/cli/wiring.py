"""From settings to objects: what more than one command needs."""

import gc
from collections.abc import Callable, Mapping
from datetime import UTC, datetime

from worker.broker.client import Connection
from worker.detect.budget import DAY_MS, HOUR_MS, AlertBudget
from worker.detect.hygiene import HygieneOptions
from worker.detect.ordinary import OrdinaryQuantile
from worker.detect.quantile import SlidingQuantile
from worker.detect.suppress import Suppression, load_suppression
from worker.detect.threshold import PartitionThreshold, Strictest, ThresholdPolicy
from worker.model.bundle import Bundle
from worker.model.fit import FitOptions
from worker.model.store import ModelStore
from worker.pipeline import MakeThreshold, Model, Pipeline
from worker.records import FloatArray
from worker.settings import AlertSettings, ModelSettings, Settings, ThresholdSettings
from worker.trainer.reservoir import Reservoir
from worker.trainer.trainer import Patience, Trainer

POLICIES: Mapping[str, Callable[[FloatArray, float, int], ThresholdPolicy]] = {
    "ordinary": OrdinaryQuantile,
    "plain": SlidingQuantile,
}

GC_THRESHOLD = 100_000  # new objects between two collections
MAX_POLL_INTERVAL_MS = 300_000  # the client's default


def utc_now() -> str:
    """The wall clock as RFC 3339, UTC, milliseconds."""
    return datetime.now(UTC).isoformat(timespec="milliseconds").replace("+00:00", "Z")


def tune_process(settings: Settings) -> None:
    """Bound the model's threads, and make the cyclic garbage collector rare.

    By default PyTorch takes every core and spins, and starves its neighbours. Batches make hundreds of thousands of
    objects that never form cycles: at its default threshold the collector walks them again and again.
    """
    import torch

    torch.set_num_threads(settings.cpu_threads)
    gc.freeze()
    gc.set_threshold(GC_THRESHOLD, 20, 20)


def connection(settings: Settings, client_id: str = "anomaly-worker") -> Connection:
    """How to reach the broker."""
    return Connection(settings.kafka.bootstrap_servers, client_id, settings.kafka.client_options())


def fit_options(settings: ModelSettings, seed: int) -> FitOptions:
    """What a fit takes."""
    return FitOptions(
        hidden=settings.hidden,
        steps=settings.steps,
        batch=settings.batch,
        learning_rate=settings.learning_rate,
        weight_decay=settings.weight_decay,
        noise=settings.noise,
        swap=settings.swap,
        holdout=settings.holdout,
        seed=seed,
    )


def threshold_maker(
    settings: ThresholdSettings, alerts: AlertSettings | None = None, partitions: int = 1
) -> MakeThreshold:
    """A new partition's threshold from calibration scores: a quantile, or its part of the alert budget, or both."""
    budgets = [(alerts.per_day, DAY_MS), (alerts.per_hour, HOUR_MS)] if alerts else []
    wanted = [(count / partitions, period_ms) for count, period_ms in budgets if count is not None]
    with_quantile = not wanted or "quantile" in settings.model_fields_set

    def make(calibration: FloatArray) -> PartitionThreshold:
        policies: list[ThresholdPolicy] = [AlertBudget(calibration, *budget) for budget in wanted]
        if with_quantile:
            policies.insert(0, POLICIES[settings.policy](calibration, settings.quantile, settings.window))
        policy = policies[0] if len(policies) == 1 else Strictest(*policies)
        return PartitionThreshold(policy, min(settings.stride, settings.window))

    return make


def nominal_rate(settings: Settings) -> float:
    """Share of ordinary records that the threshold alerts on; 0 where only an alert budget says how many."""
    alerts = settings.alerts
    budget = alerts.per_day is not None or alerts.per_hour is not None
    return 0.0 if budget and "quantile" not in settings.threshold.model_fields_set else 1 - settings.threshold.quantile


def model_builder(settings: Settings) -> Callable[[Bundle], Model]:
    """Bundles to models that are ready to score."""

    def build(bundle: Bundle) -> Model:
        return Model(
            bundle,
            device=settings.device,
            redacted=settings.alerts.redact,
            max_reasons=settings.alerts.max_reasons,
        )

    return build


def make_pipeline(settings: Settings, model: Model, partitions: int = 1) -> Pipeline:
    """The pipeline that run, replay and the trainer share; an alert budget is divided by the topic's partitions.

    SettingsError where the suppression file is broken.
    """
    alerts = settings.alerts
    suppression = Suppression() if alerts.suppression_file is None else load_suppression(alerts.suppression_file)
    suppression.require_fields(model.bundle.fields)
    return Pipeline(
        model,
        make_threshold=threshold_maker(settings.threshold, alerts, partitions),
        max_record_bytes=settings.batch.max_record_bytes,
        hygiene=HygieneOptions(alerts.dedup_key, alerts.cooldown_s, alerts.max_per_minute),
        suppression=suppression,
    )


def make_trainer(settings: Settings, champion: Model, build: Callable[[Bundle], Model]) -> Trainer:
    """The trainer that `worker train` and a replay with refits share."""
    train = settings.train
    return Trainer(
        champion,
        build,
        options=fit_options(settings.model, settings.seed),
        window=Reservoir(train.window_records, half_life_s=train.half_life_s, seed=settings.seed),
        least=train.min_records,
        patience=Patience(train.moved_looks, train.replaced_looks),
    )


def model_store(settings: Settings) -> ModelStore:
    """The model store of the settings."""
    return ModelStore(settings.model_store, options=settings.store_options())


def longest_batch_s(settings: Settings) -> float:
    """A quarter of the time after which the group gives a silent member up, or liveness fails."""
    poll_interval_ms = float(settings.kafka.options.get("max_poll_interval_ms", MAX_POLL_INTERVAL_MS))
    return min(poll_interval_ms / 1000, settings.http.stall_s) / 4
