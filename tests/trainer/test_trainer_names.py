"""Names from data are data: no field's name ends the trainer, overwrites a key of a log line, or steers a terminal."""

import orjson
import pytest
import structlog
from prometheus_client import generate_latest
from prometheus_client.parser import text_string_to_metric_families
from structlog.testing import capture_logs

from tests.trainer.common import CREATED, messages
from worker.cli.printing import print_table, print_tree
from worker.features.kinds import Numeric
from worker.features.learned import MISSING_PATTERN
from worker.features.schema import Schema, parse_schema
from worker.formats.json_objects import JsonDecoder
from worker.model.learn import fit_bundle
from worker.model.network.fit import FitOptions
from worker.model.store.bundle import Bundle
from worker.ops.health import Health
from worker.ops.metrics import TrainerMetrics
from worker.pipeline import Model, Pipeline
from worker.processes.signals import TrainerSignals
from worker.texts import MAX_QUOTED, quoted
from worker.thresholds.factory import ThresholdFactory
from worker.trainer.reservoir import Reservoir
from worker.trainer.sidecar import scored
from worker.trainer.trainer import Trainer, TrainerVerdict

NAMES = [
    *("event", "self", "level", "log_level", "timestamp", "exc_info", "stack_info", "stacks", "_name", "kind", "hint"),
    *("decision", "reasons", "seconds", "fields", "state", "field", "__class__", "__init__", "args", "kwargs"),
    *("", " ", ".", "..", "a.b", "../../etc/passwd", MISSING_PATTERN, f"({MISSING_PATTERN})"),
    *("%s", "{0}", "{self.__class__}", "[bold]red[/]", "<script>", '"', "\\", "=", "x" * 5_000),
    *("\x1b[2J", "two\nlines", "\r", "\x00", "\x7f", "\x9b2J", "\u2028", "\u202eright to left", "Ω", "\U0001f426"),
]


def row(number: int, step: float = 0.0) -> dict[str, float]:
    return {name: float((number * 7 + at) % 50) + step for at, name in enumerate(NAMES)}


@pytest.fixture(scope="module")
def bundle() -> Bundle:
    schema = Schema(tuple(map(Numeric, NAMES)))
    rows = [row(number) for number in range(600)]
    return fit_bundle(parse_schema(schema.to_toml()), rows, FitOptions(hidden=(8,), steps=20), created_at=CREATED)


@pytest.fixture(scope="module")
def verdicts(bundle: Bundle) -> list[TrainerVerdict]:
    """One check for each name, in which the fields of the four names from there on have drifted."""
    verdicts = []
    for first in range(0, len(NAMES), 4):
        names = NAMES[first : first + 4]
        trainer = Trainer(
            Model(bundle),
            Model,
            options=FitOptions(),
            reservoir=Reservoir(600, half_life_s=86_400),
            decoder=JsonDecoder(),
            min_records=100,
        )
        moved = [row(number) | {name: row(number, 25.0)[name] for name in names} for number in range(300)]
        trainer.observe(scored(trainer.current, messages(moved), JsonDecoder()))
        trainer.veto()  # so that nothing is fitted
        verdicts.append(trainer.check(CREATED).verdict)
    return verdicts


def test_a_field_that_drifts_is_named_whatever_its_name(verdicts: list[TrainerVerdict]) -> None:
    named = {name for verdict in verdicts for name in verdict.figures["drifted_fields"]}

    assert named == {quoted(name) for name in NAMES}
    assert max(map(len, named)) == MAX_QUOTED + 1


def test_its_name_is_in_one_value_of_the_log_line_and_in_no_key(verdicts: list[TrainerVerdict]) -> None:
    structlog.reset_defaults()
    with capture_logs() as logs:
        signals = TrainerSignals(TrainerMetrics(), Health())
        for verdict in verdicts:
            signals.checked(verdict, 1.0)

    checked, drifted = [[e for e in logs if e["event"] == what] for what in ("checked", "fields have drifted")]
    assert len(checked) == len(drifted) == len(verdicts)
    assert {frozenset(entry) for entry in drifted} == {frozenset({"event", "log_level", "fields"})}
    assert len({frozenset(entry) for entry in checked}) == 1
    assert {name for entry in drifted for name in entry["fields"]} == {quoted(name) for name in NAMES}
    orjson.dumps(logs)


def test_its_name_is_one_label_of_the_metrics_page(verdicts: list[TrainerVerdict]) -> None:
    metrics = TrainerMetrics()
    signals = TrainerSignals(metrics, Health())
    labels = set()
    for verdict in verdicts:
        signals.checked(verdict, 1.0)
        page = generate_latest(metrics.registry).decode()
        (family,) = [f for f in text_string_to_metric_families(page) if f.name == "worker_trainer_field_drift"]
        labels |= {sample.labels["field"] for sample in family.samples}

    assert labels == {quoted(quoted(name)) for name in NAMES}


def test_a_terminal_shows_its_control_characters_and_obeys_none(capsys: pytest.CaptureFixture[str]) -> None:
    print_table([[name, "x"] for name in NAMES])
    print_tree({name: {name: name} for name in NAMES})

    shown = capsys.readouterr().out
    assert len(shown.splitlines()) == 3 * len(NAMES)
    assert not set(shown) & set("\x1b\x00\x7f\x9b\r\u2028\u202e")


def test_every_field_can_be_explained_and_the_missing_pattern_is_none_of_them(bundle: Bundle) -> None:
    model = Model(bundle, max_reasons=len(NAMES))
    pipeline = Pipeline(model, threshold_factory=ThresholdFactory("plain", 0.01, 1_000, 1_000))
    odd = messages([row(1) | {name: 1e9} for name in NAMES])

    alerts = pipeline.process(odd).alerts

    assert bundle.fitted.missing_pattern == f"(({MISSING_PATTERN}))"
    assert [alert.explanation[0].field for alert in alerts] == NAMES
    assert sorted(bundle.fields) == sorted([*NAMES, bundle.fitted.missing_pattern])
