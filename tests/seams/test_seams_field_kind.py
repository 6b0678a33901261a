"""A new kind of field is one class and one registration; schema, fit, replay and alert follow."""

import re
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from random import Random
from typing import Any

import numpy as np
import orjson
import pytest
from numpy.typing import NDArray
from typing_extensions import override

from devtools import traffic
from worker.cli import main
from worker.errors import ErrorCode
from worker.features.infer import infer_schema
from worker.features.inject import inject
from worker.features.kinds import KINDS, Numeric
from worker.features.kinds.base import Column, Failures
from worker.features.kinds.evidence import Evidence, Sample, Strength
from worker.features.kinds.options import one_of, option
from worker.features.learned import NumericColumn
from worker.features.schema import Schema
from worker.trainer.drift import drifted_fields

_AMOUNT = re.compile(r"(-?[0-9]+\.[0-9]{2}) ([A-Z]{3})")


@dataclass(frozen=True)
class Currency(Numeric):
    """An amount of money, such as "12.50 EUR".

    code   the currency that a model expects, for alerts
    """

    kind = "currency"
    accepts = frozenset({str})
    expected = "an amount such as 12.50 EUR"
    cell = "text"

    code: str = option("EUR", one_of(("EUR", "USD")))

    @classmethod
    @override
    def infer(cls, sample: Sample) -> Evidence | None:
        fits = sample.types == {str} and all(map(_AMOUNT.fullmatch, sample.values))
        return Evidence(Strength.FORM, "amounts with a currency") if fits else None

    @override
    def parse(self, column: Column) -> tuple[NDArray[np.float64], Failures]:
        numbers, failures = np.zeros(len(column.values)), Failures()
        for index, value in enumerate(column.values):
            match = _AMOUNT.fullmatch(value or "0.00 EUR")
            if match is None:
                failures[index] = self.failure(ErrorCode.WRONG_TYPE, f"expected {self.expected}, got {value!r}")
            else:
                numbers[index] = float(match[1])
        return numbers, failures

    @override
    def read_back(self, columns: Sequence[NumericColumn], z: Sequence[float]) -> str:
        return f"{super().read_back(columns, z):.2f} {self.code}"

    @override
    def plant(self, value: Any, rng: Random) -> str:
        return f"{100 * float(value.split()[0]):.2f} {self.code}"


@pytest.fixture(autouse=True)
def history(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[list[dict[str, Any]]]:
    """1,600 payments with amounts such as "12.50 EUR", also in march.jsonl; every 50th amount fits no country."""
    monkeypatch.chdir(tmp_path)
    monkeypatch.setenv("WORKER_MODEL__OPTIONS", '{"steps": 200}')
    KINDS.register(Currency.kind, Currency)
    rows = [orjson.loads(message.value or b"") for message in traffic.messages(1_600)]
    for number, row in enumerate(rows):
        row |= {"amount": f"{row['amount']:.2f} EUR", "fraud": number % 50 == 49}
    Path("march.jsonl").write_bytes(b"\n".join(map(orjson.dumps, rows)))
    yield rows
    KINDS.pop(Currency.kind)


def test_a_toy_kind_goes_from_the_proposed_schema_to_an_alert_that_explains_it(
    capsys: pytest.CaptureFixture[str],
) -> None:
    assert main(["infer-schema", "march.jsonl", "--ignore", "fraud"]) == 0
    schema = capsys.readouterr().out
    Path("schema.toml").write_text(schema.replace('kind = "currency"', 'kind = "currency"\ncode = "USD"'))
    assert main(["replay", "march.jsonl", "--label", "fraud", "--fit-first", "800", "--fit-on", "normal"]) == 0
    alerts = [orjson.loads(line) for line in Path("out/replay/alerts.jsonl").read_bytes().splitlines()]
    reasons = {reason["field"]: reason for reason in max(alerts, key=lambda alert: alert["score"])["explanation"]}

    assert "# amounts with a currency; 0% missing" in schema
    assert reasons["amount"]["observed"] == "5000000.00 EUR"
    assert re.fullmatch(r"[0-9.]+ USD", reasons["amount"]["expected"])
    assert reasons["amount"]["typical"][1] < 5_000_000
    assert re.search(
        r"<td>amount</td><td>currency</td><td>[0-9.]+ to [0-9e+.]+, median [0-9.]+</td>",
        Path("out/replay/report.html").read_text(),
    )


@pytest.mark.parametrize(
    ("head", "dead", "unexpected"), [("", {}, {"amount": 5}), ("strict = true\n", {"wrong_type": 5}, {})]
)
def test_an_amount_that_is_none_is_unexpected_or_where_the_schema_is_strict_a_dead_letter(
    history: list[dict[str, Any]], head: str, dead: dict[str, int], unexpected: dict[str, int]
) -> None:
    broken = [{**row, "amount": "much"} for row in history[:3]] + [{**row, "amount": 5} for row in history[:2]]
    Path("schema.toml").write_text(head + infer_schema(history, ["fraud"]).to_toml())
    Path("march.jsonl").write_bytes(b"\n".join(map(orjson.dumps, [*history, *broken])))
    main(["replay", "march.jsonl", "--ignore", "fraud", "--fit-first", "800"])
    metrics = orjson.loads(Path("out/replay/metrics.json").read_bytes())

    assert metrics["dead_letters_by_code"] == dead
    assert metrics["unexpected_values"] == unexpected


def test_anomalies_are_planted_in_it_and_its_drift_is_noticed(history: list[dict[str, Any]]) -> None:
    schema = Schema((Currency("amount"), *infer_schema(history, ["fraud"]).schema.fields[2:]))
    changed, truth = inject(history, schema, share=0.01, kinds=["scaled_number"])
    dearer = [{**row, "amount": f"{2 * float(row['amount'].split()[0]):.2f} EUR"} for row in history]

    assert {planted.fields for planted in truth} == {("amount",)}
    assert all(changed[planted.index]["amount"] != history[planted.index]["amount"] for planted in truth)
    assert [drift.field for drift in drifted_fields(history, dearer, schema)] == ["amount"]
