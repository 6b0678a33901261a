"""From settings to objects: what more than one command needs."""

import time
from collections.abc import Callable

from worker.alerts.grouping import GroupingOptions
from worker.alerts.silences import Silences, load_silences
from worker.broker.client import CONSUMER_DEFAULTS, Connection
from worker.formats import DECODERS
from worker.formats.base import Decoder
from worker.model.network.options import FitOptions
from worker.model.presets import preset_options
from worker.model.store.bundle import Bundle
from worker.model.store.model_store import ModelStore
from worker.pipeline import Model, Pipeline
from worker.rollout.paired import SAMPLE_EVERY, Pairing
from worker.settings import AlertSettings, ModelSettings, Settings, ThresholdSettings
from worker.texts import rfc3339
from worker.thresholds.budget import DAY_MS, HOUR_MS
from worker.thresholds.factory import ThresholdFactory
from worker.trainer.reservoir import Reservoir
from worker.trainer.trainer import Trainer


def utc_now() -> str:
    """The wall clock as RFC 3339, UTC, milliseconds."""
    return rfc3339(time.time() * 1000)


def connection(settings: Settings, client_id: str = "anomaly-worker") -> Connection:
    """How to reach the broker."""
    options = {"max_poll_interval_ms": poll_interval_ms(settings), **settings.kafka.client_options()}
    return Connection(settings.kafka.bootstrap_servers, client_id, options)


def poll_interval_ms(settings: Settings) -> int:
    """Time after which the group gives up a member that does not poll: longer than a delivery may take."""
    default = max(CONSUMER_DEFAULTS["max_poll_interval_ms"], 3 * settings.kafka.delivery_timeout_ms)
    return int(settings.kafka.options.get("max_poll_interval_ms", default))


def fit_options(settings: ModelSettings, seed: int) -> FitOptions:
    """What a fit takes: the preset's values, and over them whatever is set."""
    values = settings.model_dump(exclude={"preset", "options"}, exclude_none=True)
    return preset_options(settings.preset, **values, **settings.options, seed=seed)


def threshold_factory(
    settings: ThresholdSettings, alerts: AlertSettings | None = None, partitions: int = 1
) -> ThresholdFactory:
    """Thresholds by their rule, or by their part of the alert budget, or by both; without `alerts` no budget."""
    budgets = [(alerts.per_day, DAY_MS), (alerts.per_hour, HOUR_MS)] if alerts else []
    rule_values = {
        "fixed": settings.fixed,
        "training-quantile": settings.training_quantile,
        "contamination": settings.contamination,
    }
    return ThresholdFactory(
        policy=settings.policy,
        quantile=settings.quantile,
        window=settings.window,
        stride=settings.stride,
        rule=settings.rule,
        rule_values={name: value for name, value in rule_values.items() if value is not None},
        budgets=tuple((count / partitions, period_ms) for count, period_ms in budgets if count is not None),
        with_rule=bool({"quantile", "rule"} & settings.model_fields_set),
    )


def make_pairing(settings: Settings, partitions: int = 1) -> Pairing:
    """How two versions are compared. The paired one sees a sample: its part of an alert budget is as much smaller."""
    return Pairing(
        threshold_factory(settings.threshold, settings.alerts, partitions * SAMPLE_EVERY),
        make_decoder(settings, any_size=True),
        settings.model_canary_records,
    )


def model_builder(settings: Settings, *, latent: bool = False) -> Callable[[Bundle], Model]:
    """Bundles to models that are ready to score; latent: and to give the records' codes."""

    def build(bundle: Bundle) -> Model:
        return Model(
            bundle,
            device=settings.device,
            redacted=settings.alerts.redact,
            max_reasons=settings.alerts.max_reasons,
            latent=latent,
        )

    return build


def make_decoder(settings: Settings, *, any_size: bool = False) -> Decoder:
    """What turns records into fields. any_size: for records that were scored before, so that none is refused now."""
    return DECODERS[settings.kafka.format](None if any_size else settings.batch.max_record_bytes)


def make_pipeline(settings: Settings, model: Model, partitions: int = 1) -> Pipeline:
    """The pipeline that run, replay and the trainer share; an alert budget is divided by the topic's partitions.

    SettingsError where the silences file is broken.
    """
    alerts = settings.alerts
    silences = Silences() if alerts.silences_file is None else load_silences(alerts.silences_file)
    silences.require_fields(model.bundle.fields)
    return Pipeline(
        model,
        threshold_factory=threshold_factory(settings.threshold, alerts, partitions),
        decoder=make_decoder(settings),
        grouping=GroupingOptions(alerts.group_by, alerts.cooldown_s, alerts.max_per_minute),
        silences=silences,
    )


def make_trainer(settings: Settings, current: Model, build: Callable[[Bundle], Model]) -> Trainer:
    """The trainer that `worker train` and a replay with refits share."""
    train = settings.train
    return Trainer(
        current,
        build,
        options=fit_options(settings.model, settings.seed),
        reservoir=Reservoir(train.window_records, half_life_s=train.half_life_s, seed=settings.seed),
        decoder=make_decoder(settings, any_size=True),
        min_records=train.min_records,
        keep_rows=train.rehearsal_records,
        drifted_checks=train.drifted_checks,
        replaced_checks=train.replaced_checks,
    )


def model_store(settings: Settings) -> ModelStore:
    """The model store of the settings."""
    return ModelStore(settings.model_store, options=settings.store_options())


def max_batch_s(settings: Settings) -> float:
    """A quarter of the time after which the group gives a silent member up, or liveness fails."""
    return min(poll_interval_ms(settings) / 1000, settings.http.stall_s) / 4
