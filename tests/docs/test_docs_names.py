"""Names on the pages are names that exist."""

import builtins
import re
from functools import cache
from pathlib import Path

import pytest
from prometheus_client import CollectorRegistry

from tests.docs.common import CHANGELOG, PAGES, ROOT, code_spans, name_of, prose_of, table_under, text_of
from worker.ops.metrics import Metrics, TrainerMetrics
from worker.settings import leaves

NOT_SETTINGS = {"WORKER_CONFIG_FILE", "WORKER_SECRETS_DIR", "WORKER_TEST_DATA"}
OPTION = "WORKER_KAFKA__OPTIONS__"
CODE = ("worker", "devtools", "tests", "benchmarks")
ARCHITECTURE = ROOT / "docs" / "architecture.md"
OPERATIONS = ROOT / "docs" / "operations.md"
QUOTED = re.compile(r'"([^"]+)"')
FOREIGN = {*dir(builtins), "AutoEncoder", "KafkaConsumer"}  # of Python and of libraries


@pytest.mark.parametrize("page", PAGES, ids=name_of)
def test_a_setting_on_a_page_is_one(page: Path) -> None:
    known = {*(name for name, _, _ in leaves()), *NOT_SETTINGS}
    for name, more in re.findall(r"\b(WORKER_[A-Z0-9_]*[A-Z0-9])(_*…|_\*)?", text_of(page)):
        if more:
            assert any(each.startswith(name) for each in known), f"no setting begins with {name}"
        else:
            assert name in known or name.startswith(OPTION), f"there is no setting {name}"


@cache
def metric_names() -> frozenset[str]:
    names = set()
    for registry in (Metrics().registry, TrainerMetrics().registry):
        assert isinstance(registry, CollectorRegistry)
        for family in registry.collect():
            names.add(family.name)
            names.update(sample.name for sample in family.samples)
            names.add(f"{family.name}_total")
    return frozenset(names)


@pytest.mark.parametrize("page", PAGES, ids=name_of)
def test_a_metric_on_a_page_is_one(page: Path) -> None:
    for name, more in re.findall(r"`(worker_[a-z_]+?)(_?…)?(?:\{[^`]*\})?`", text_of(page)):
        known = metric_names()
        if more:
            assert any(each.startswith(name) for each in known), f"no metric begins with {name}"
        else:
            assert name in known, f"there is no metric {name}"


@pytest.mark.parametrize("page", [*PAGES, CHANGELOG], ids=name_of)
def test_a_link_on_a_page_leads_somewhere(page: Path) -> None:
    for target in re.findall(r"\]\(([^)\s]+)\)", prose_of(page)):
        if re.match(r"[a-z]+:", target):
            continue
        path, _, anchor = target.partition("#")
        file = (page.parent / path).resolve() if path else page
        assert file.exists(), f"{target}: no such file"
        assert not anchor or anchor in anchors(file), f"{target}: no such heading"


def anchors(page: Path) -> set[str]:
    """Where a link to a heading of this page can lead, as code hosts make it."""
    headings = re.findall(r"^#+ (.+)$", text_of(page), flags=re.MULTILINE)
    return {re.sub(r"[^\w\- ]", "", heading.lower()).replace(" ", "-") for heading in headings}


@pytest.mark.parametrize("page", PAGES, ids=name_of)
def test_a_file_of_the_repository_on_a_page_exists(page: Path) -> None:
    top = "|".join((*CODE, "docs", "deploy"))
    for span in code_spans(page):
        if re.fullmatch(rf"({top})/[\w./-]*", span):
            assert (ROOT / span).exists(), f"there is no {span}"


@cache
def class_names() -> frozenset[str]:
    names: set[str] = set()
    for folder in CODE:
        for file in (ROOT / folder).rglob("*.py"):
            text = file.read_text(encoding="utf-8")
            names.update(re.findall(r"^\s*(?:class )?([A-Z]\w+)(?=[:(\[ ])", text, re.MULTILINE))
    return frozenset(names)


@pytest.mark.parametrize("page", PAGES, ids=name_of)
def test_a_class_on_a_page_exists(page: Path) -> None:
    named = {span for span in code_spans(page) if re.fullmatch(r"[A-Z][a-z]+(?:[A-Z][a-z]*)+", span)}

    assert not sorted(named - class_names() - FOREIGN)


def test_a_registry_or_other_constant_on_the_page_of_architecture_exists() -> None:
    named = {span for span in code_spans(ARCHITECTURE) if re.fullmatch(r"[A-Z][A-Z_]+[A-Z]", span)}
    constants = {name for name in named if not name.startswith("WORKER_")}

    assert constants
    assert not sorted(constants - class_names())


def test_a_log_line_or_error_on_the_page_of_operations_is_one() -> None:
    quoted = [text for row in table_under(OPERATIONS, "## When something is wrong") for text in QUOTED.findall(row[0])]
    code = "".join(file.read_text(encoding="utf-8") for file in (ROOT / "worker").rglob("*.py"))

    assert quoted
    assert not [text for text in quoted if text not in code]
