"""`worker models`: what was decided is shown, and decided by a person."""

import os
from collections.abc import Callable
from dataclasses import asdict
from pathlib import Path

import orjson
import pytest

from devtools import traffic
from devtools.objects import ObjectServer
from worker.cli import main
from worker.model.store.bundle import MANIFEST, with_report
from worker.model.store.model_store import ModelStore
from worker.model.store.pointer import Mark, Status

FIRST = traffic.bundle()
SECOND, THIRD = (with_report(FIRST, source=f"topic records-{number}", gate={"auc": 0.9875}) for number in (2, 3))

ODD = "0123456789ab"


def odd(root: Path, make: Callable[[Path], object]) -> None:
    """A version's folder whose manifest is made so."""
    (root / ODD).mkdir()
    make(root / ODD / MANIFEST)


BREAK: dict[str, Callable[[Path], object]] = {
    "an empty folder": lambda root: (root / ODD).mkdir(),
    "a file where a folder belongs": lambda root: (root / ODD).write_text("x"),
    "a folder where the manifest belongs": lambda root: odd(root, Path.mkdir),
    "a manifest that is a named pipe": lambda root: odd(root, os.mkfifo),
    "a manifest that links to itself": lambda root: odd(root, lambda path: path.symlink_to(MANIFEST)),
    "a manifest that links to a device": lambda root: odd(root, lambda path: path.symlink_to("/dev/zero")),
    "a manifest of control characters": lambda root: odd(root, lambda path: path.write_bytes(b"\x1b[2J\x00" * 100)),
    "a manifest of 100 MB": lambda root: odd(root, lambda path: path.write_bytes(bytes(100_000_000))),
    "a link to nowhere": lambda root: (root / ODD).symlink_to("nowhere"),
    "a link to another version": lambda root: (root / ODD).symlink_to(FIRST.version),
    "a link to the root": lambda root: (root / ODD).symlink_to("/"),
    "a name of control characters": lambda root: (root / "\x1b[2J").mkdir(),
    "a name that is no UTF-8": lambda root: (root / "\udcff\udcfe").mkdir(),
    "a folder that nobody may read": lambda root: (root / ODD).mkdir(mode=0),
    "a time far in the future": lambda root: odd(root, lambda path: os.utime(path.parent, (9e11, 9e11))),
}


@pytest.fixture
def store(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> ModelStore:
    """FIRST and then SECOND were promoted, THIRD is held back."""
    monkeypatch.chdir(tmp_path)
    monkeypatch.setenv("WORKER_MODEL_STORE", "models")
    store = ModelStore("models")
    for bundle in (FIRST, SECOND, THIRD):
        store.save(bundle)
    store.promote(FIRST.version)
    store.promote(SECOND.version, mark=mark(Status.PROMOTED, "ordinary traffic had moved"))
    store.mark(THIRD.version, mark(Status.HELD, "a flood or a new normal"))
    return store


def mark(status: Status, why: str) -> Mark:
    return Mark(status, "2026-01-01T00:00:00.000Z", "trainer", why, {"alert_rate": 0.0123})


def models(*words: str) -> int:
    return main(["models", *words])


def test_the_list_says_what_was_decided_and_why(store: ModelStore, capsys: pytest.CaptureFixture[str]) -> None:
    assert models("list") == 0

    rows = {line[3:15]: line for line in capsys.readouterr().out.splitlines()}
    assert rows[SECOND.version].startswith("* ")
    assert rows[SECOND.version].endswith("  promoted  ordinary traffic had moved")
    assert rows[THIRD.version].endswith("held      a flood or a new normal")


def test_the_list_as_json_has_report_and_figures(store: ModelStore, capsys: pytest.CaptureFixture[str]) -> None:
    assert models("list", "--json") == 0

    rows = {row["version"]: row for row in map(orjson.loads, capsys.readouterr().out.splitlines())}
    assert rows[THIRD.version]["mark"] == asdict(mark(Status.HELD, "a flood or a new normal"))
    assert rows[THIRD.version]["report"]["gate"] == {"auc": 0.9875}
    assert [version for version, row in rows.items() if row["current"]] == [SECOND.version]


def test_show_prints_facts_verdict_and_report(store: ModelStore, capsys: pytest.CaptureFixture[str]) -> None:
    assert models("show") == 0

    out = capsys.readouterr().out
    for words in (f"{SECOND.version} (current)", "promoted, by the trainer", "ordinary traffic had moved", "0.0123"):
        assert words in out
    assert "0.9875" in out
    assert FIRST.schema.fingerprint in out


def test_adopt_takes_the_newest_that_is_held_back(store: ModelStore, capsys: pytest.CaptureFixture[str]) -> None:
    assert models("adopt", "--why", "new tariff since May") == 0

    assert capsys.readouterr().out == f"{THIRD.version} is current\n"
    assert store.current() == THIRD.version
    decision = store.marks()[THIRD.version]
    assert (decision.status, decision.by, decision.why) == (Status.PROMOTED, "operator", "new tariff since May")


def test_veto_rules_out_the_newest_that_is_held_back(store: ModelStore, capsys: pytest.CaptureFixture[str]) -> None:
    assert models("veto", "--why", "a flood") == 0

    assert store.current() == SECOND.version
    assert (store.marks()[THIRD.version].status, store.marks()[THIRD.version].why) == (Status.VETOED, "a flood")
    assert models("adopt", THIRD.version) == 1
    assert "vetoed by the operator" in capsys.readouterr().err
    assert models("promote", THIRD.version, "--force") == 0
    assert store.current() == THIRD.version


def test_veto_of_the_current_version_goes_back(store: ModelStore, capsys: pytest.CaptureFixture[str]) -> None:
    assert models("veto", SECOND.version) == 0

    assert capsys.readouterr().out.splitlines() == [f"{SECOND.version} is vetoed", f"{FIRST.version} is current again"]
    assert store.marks()[SECOND.version].status is Status.VETOED


def test_rollback_marks_what_it_leaves(store: ModelStore) -> None:
    assert models("rollback", "--why", "too many alerts") == 0

    assert store.current() == FIRST.version
    left = store.marks()[SECOND.version]
    assert (left.status, left.why) == (Status.ROLLED_BACK, "too many alerts")


@pytest.mark.parametrize("action", ["adopt", "veto"])
def test_nothing_held_back_is_one_clear_line(
    store: ModelStore, action: str, capsys: pytest.CaptureFixture[str]
) -> None:
    store.mark(THIRD.version, mark(Status.REJECTED, "not better"))

    assert models(action) == 1
    assert capsys.readouterr().err == (
        "error: no model version in models is held back: name one (worker models list)\n"
    )


def test_compare_says_what_another_version_would_have_alerted_on_recorded_traffic(
    store: ModelStore, capsys: pytest.CaptureFixture[str]
) -> None:
    other = traffic.bundle(1)
    store.save(other)
    lines = [
        orjson.dumps({**orjson.loads(message.value or b""), "odd": place % 50 == 49})
        for place, message in enumerate(traffic.messages(3_000))
    ]
    Path("march.jsonl").write_bytes(b"\n".join(lines))

    assert models("compare", other.version, "march.jsonl", "--label", "odd") == 0

    out = capsys.readouterr().out
    head, *rows = [line.split() for line in out.splitlines()]
    assert head == [SECOND.version, other.version, "difference"]
    assert ["ROC-AUC", "1", "1"] in [row[:3] for row in rows]
    assert "shared" in out
    assert "no clear difference in average precision" in out
    assert Path("out/compare/report.html").exists()


def test_compare_needs_two_versions(store: ModelStore, capsys: pytest.CaptureFixture[str]) -> None:
    assert models("compare", SECOND.version, "march.jsonl") == 2
    assert "--against" in capsys.readouterr().err


@pytest.mark.parametrize("action", ["promote", "adopt", "veto", "show"])
def test_a_version_that_is_not_there_is_named(
    store: ModelStore, action: str, capsys: pytest.CaptureFixture[str]
) -> None:
    assert models(action, "abcabcabcabc") == 1
    assert "no model version 'abcabcabcabc' in models; there are: " in capsys.readouterr().err
    assert "abcabcabcabc" not in store.marks()


def test_a_store_on_s3_is_reached_by_the_settings(
    object_server: ObjectServer, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str], tmp_path: Path
) -> None:
    (tmp_path / "key").write_text(object_server.options["secret"] + "\n")
    options = {**object_server.options, "secret": {"file": str(tmp_path / "key")}}
    monkeypatch.setenv("WORKER_MODEL_STORE", object_server.url())
    monkeypatch.setenv("WORKER_MODEL_STORE_OPTIONS", orjson.dumps(options).decode())

    assert models("list") == 0
    assert "no model in s3://models/place-" in capsys.readouterr().out


def test_veto_of_the_only_version_changes_nothing_and_says_what_to_do(
    store: ModelStore, capsys: pytest.CaptureFixture[str]
) -> None:
    models("veto", SECOND.version)
    capsys.readouterr()

    assert models("veto", FIRST.version) == 1
    printed = capsys.readouterr()
    assert printed.out == ""
    assert printed.err == (
        f"error: nothing to go back to in models: no sound version was current before {FIRST.version}, which stays "
        "current; fit one with: worker train --once --from FILE\n"
    )
    assert store.current() == FIRST.version
    assert FIRST.version not in store.marks() or store.marks()[FIRST.version].status is Status.PROMOTED

    store.promote(THIRD.version)  # what a fit does at its end
    assert models("veto", FIRST.version) == 0
    assert store.current() == THIRD.version


@pytest.mark.parametrize("break_it", BREAK)
def test_one_broken_folder_does_not_hide_the_others(
    break_it: str, store: ModelStore, capsys: pytest.CaptureFixture[str], tmp_path: Path
) -> None:
    BREAK[break_it](Path(store.name))

    assert models("list") == 0
    listed = capsys.readouterr().out
    assert FIRST.version in listed
    assert SECOND.version in listed
    assert not set(listed) & set("\x1b\x00")
    assert models("promote", FIRST.version) == 0
