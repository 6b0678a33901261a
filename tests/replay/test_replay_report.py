import html
import re
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import orjson
import pytest
from markupsafe import escape

from devtools import traffic
from tests.replay import recording
from tests.replay.browser import CHROMIUM, browse
from worker.errors import ErrorCode
from worker.records import DeadLetter, Message
from worker.replay import charts
from worker.replay.loop import Result
from worker.replay.report import Facts, digits, plain, render

CHARTS = ("scores", "days", "distribution", "roc", "precision_recall")
BROKEN = [b"{", b'{"amount": "<script>alert(1)</script>"}']


def make_report(folder: Path, *, labelled: bool = True, **metrics: Any) -> tuple[Path, Result]:
    """The page of a replay, with these metrics besides."""
    result = recording.run([*recording.values(), *BROKEN], folder, labelled=labelled)
    result.metrics |= metrics
    page = folder / "report.html"
    settings = {"WORKER_THRESHOLD__QUANTILE": "0.99"}
    facts = Facts("march.jsonl.gz", traffic.bundle(), settings, "0.1.0", "threshold.quantile")
    page.write_text(render(result, facts, folder), encoding="utf-8")
    return page, result


@pytest.fixture(scope="module")
def report(tmp_path_factory: pytest.TempPathFactory) -> tuple[Path, Result]:
    return make_report(tmp_path_factory.mktemp("report"))


def numbers_on(page: str) -> Iterator[tuple[str, Any, str]]:
    """Path, exact value and visible text of every metric on the page."""
    for path, value, shown in re.findall(r'data-metric="([^"]+)" data-value="([^"]*)">([^<]*)<', page):
        yield html.unescape(path), html.unescape(value), html.unescape(shown)


def looked_up(metrics: Any, path: str) -> Any:
    for key in path.split("."):
        metrics = metrics[key]
    return metrics


def test_each_number_on_the_page_is_the_one_in_the_metrics(report: tuple[Path, Result]) -> None:
    page, result = report
    metrics = orjson.loads(orjson.dumps(result.metrics))
    numbers = list(numbers_on(page.read_text()))

    assert {path for path, _, _ in numbers} >= {
        "records",
        "alerts",
        "roc_auc",
        "precision_at_k.10",
        "dead_letters",
    }
    for path, value, shown in numbers:
        expected = looked_up(metrics, path)
        parts = expected if isinstance(expected, list) else [expected]
        assert value == (expected if isinstance(expected, str) else orjson.dumps(expected).decode())
        visible = [
            "-" if part is None else part if isinstance(part, str) else orjson.dumps(part).decode() for part in parts
        ]
        assert shown.replace(",", "") == " to ".join(visible).replace(",", "")


def test_every_metric_is_on_the_page(report: tuple[Path, Result]) -> None:
    page, result = report
    shown = {path.split(".")[0] for path, _, _ in numbers_on(page.read_text())}

    assert shown >= set(result.metrics)


def test_the_page_needs_nothing_from_elsewhere(report: tuple[Path, Result]) -> None:
    page = report[0].read_text()

    assert not re.search(r"<(link|img|iframe|script)[^>]+(src|href)=", page)
    assert "url(" not in page.partition("<script")[0]


def test_what_comes_from_records_is_escaped(report: tuple[Path, Result]) -> None:
    page = report[0].read_text()

    assert "<script>alert(1)" not in page
    assert "&lt;script&gt;alert(1)" in page


def test_the_strongest_alerts_show_what_was_observed_and_expected(report: tuple[Path, Result]) -> None:
    page, result = report
    alert = orjson.loads(result.strongest[0][0])
    reason = alert["explanation"][0]

    body = page.read_text()
    assert body.count('<article class="alert">') == min(50, result.metrics["alerts"])
    observed, expected = (escape(plain(reason[name])) for name in ("observed", "expected"))
    assert f"<b>{observed}</b>, expected {expected}" in body


def test_what_the_model_learned_is_told_per_field(report: tuple[Path, Result]) -> None:
    page = report[0].read_text()

    for name in ("amount", "merchant.country", "channel", "online", "at"):
        assert f"<td>{name}</td>" in page
    assert "fraud" not in page.partition("What the model learned")[2].partition("</section>")[0]


def test_without_labels_the_page_has_no_ranking(tmp_path: Path) -> None:
    page = make_report(tmp_path, labelled=False)[0].read_text()

    assert "chart-roc" not in page
    assert "chart-scores" in page


def test_sections_of_a_sweep_a_comparison_and_refits_show_their_numbers(tmp_path: Path) -> None:
    row = {"setting": "0.99", "alerts": 1200, "alerts_per_day": 3.5, "precision": None, "recall": None}
    compared = {
        "model_versions": ["new"], "shared": 3, "gained": 2, "lost": 1, "metrics": {"alerts": 5, "roc_auc": 0.9},
        "differences": {"roc_auc": {"difference": 0.1, "interval": [0.05, 0.2]}}, "verdict": "<b>better",
    }  # fmt: skip
    held = {"record": 5000, "decision": "held", "reasons": ["<i>new"], "candidate": None, "figures": {}}

    page = make_report(
        tmp_path, sweep=[{**row, "false_alert_rate": None}], compare=compared, refits=[held]
    )[0].read_text()  # fmt: skip

    assert "<th>threshold.quantile</th><th class=n>alerts</th><th class=n>alerts per day</th></tr>" in page
    assert "<tr><td>0.99</td><td class=n>1,200</td><td class=n>3.5</td></tr>" in page
    assert 'data-metric="compare.gained" data-value="2">2<' in page
    assert "<td class=n>+0.1 (+0.05 to +0.2)</td>" in page
    assert "<b>&lt;b&gt;better</b>" in page
    assert "<td class=n>5,000</td><td><b>held</b></td><td>&lt;i&gt;new</td>" in page


def test_numbers_keep_their_digits_and_large_ones_get_commas() -> None:
    assert [digits(value) for value in (1234567, 0.000123, None, [0.5, 1234.5], True)] == [
        "1,234,567", "0.000123", "-", "0.5 to 1,234.5", "true"
    ]  # fmt: skip


def test_each_severity_has_a_colour() -> None:
    style = Path(charts.__file__).with_name("page").joinpath("report.css").read_text()

    for severity in ("critical", "warning", "info"):
        assert re.search(rf"\.tag\.{severity}\b[^}}]*color:", style)


def test_dead_letters_name_code_and_row(report: tuple[Path, Result]) -> None:
    result = report[1]

    assert [dead.error_code for dead in result.tally.dead_examples] == [ErrorCode.INVALID_JSON, ErrorCode.WRONG_TYPE]
    assert isinstance(result.tally.dead_examples[0], DeadLetter)
    assert not isinstance(result.tally.dead_examples[0].message, Message)
    assert "<td>3000</td><td>invalid_json</td>" in report[0].read_text()


@pytest.mark.skipif(CHROMIUM is None, reason="needs chromium on PATH")
def test_every_chart_is_drawn_with_data(report: tuple[Path, Result]) -> None:
    dom = browse(report[0], "--dump-dom", "--window-size=1200,4000")

    for name in CHARTS:
        drawn = dom.partition(f'id="chart-{name}"')[2].partition("</section>")[0]
        shapes = re.findall(r'<path class="(?:js-line|js-fill|point)[^"]*"[^>]* d="M[^"]+"', drawn)
        shapes += re.findall(r'<g class="point"><path d="M[^"]+"', drawn)
        assert shapes, name


@pytest.mark.skipif(CHROMIUM is None, reason="needs chromium on PATH")
@pytest.mark.parametrize(("scheme", "size"), [("1", "1200,4000"), ("0", "500,6000")])
def test_a_screenshot_is_more_than_an_empty_page(
    report: tuple[Path, Result], tmp_path: Path, scheme: str, size: str
) -> None:
    image = tmp_path / "page.png"
    browse(
        report[0], f"--screenshot={image}", f"--window-size={size}", f"--blink-settings=preferredColorScheme={scheme}"
    )

    assert image.stat().st_size > 60_000
