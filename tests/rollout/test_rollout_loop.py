"""Swaps under load: every record once, bad versions go back by themselves, good ones stay, old ones are let go."""

import gc
import weakref
from collections import Counter
from collections.abc import Callable
from pathlib import Path

import pytest

from devtools import traffic
from devtools.stage import GROUP, Guarantee, Stage, Worker, threshold_factory
from tests.rollout.candidates import broken_scale, fit, messages, noise
from worker.errors import StoreUnavailable
from worker.formats.json_objects import JsonDecoder
from worker.model.store.bundle import Bundle
from worker.model.store.model_store import ModelStore
from worker.model.store.pointer import Mark, Status
from worker.pipeline import Model
from worker.records import Message, Partition
from worker.rollout.canary import CanaryVerdict
from worker.rollout.paired import Pairing, ShadowCounts, ShadowReport
from worker.rollout.rollout import RolloutEvents
from worker.rollout.watcher import ModelWatcher, StoreRollout

OLD, GOOD = (traffic.bundle(seed) for seed in (0, 1))
RECORDS = 6_000
NOW = "2026-01-02T00:00:00.000Z"
BOTH: list[Guarantee] = ["at_least_once", "exactly_once"]


class Seen(RolloutEvents):
    def __init__(self) -> None:
        self.verdicts: list[CanaryVerdict] = []
        self.canaries: list[tuple[str, str]] = []
        self.dropped: list[str] = []
        self.shadow_records = 0
        self.reports: list[ShadowReport] = []

    def canary_began(self, version: str, previous: str) -> None:
        self.canaries.append((version, previous))

    def canary_ended(self, verdict: CanaryVerdict) -> None:
        self.verdicts.append(verdict)

    def canary_dropped(self, version: str) -> None:
        self.dropped.append(version)

    def shadow_scored(self, counts: ShadowCounts) -> None:
        self.shadow_records += counts.sampled

    def shadow_reported(self, report: ShadowReport) -> None:
        self.reports.append(report)


class Away(ModelStore):
    away = False

    def rollback(self, *, leaving: str | None = None, mark: Mark | None = None) -> str:
        if self.away:
            raise StoreUnavailable("no route to the store")
        return super().rollback(leaving=leaving, mark=mark)


class Site:
    """A worker whose model store is checked between its steps, instead of once a second."""

    def __init__(self, folder: Path, guarantee: Guarantee = "at_least_once", partitions: int = 1) -> None:
        self.store = Away(folder)
        self.stage = Stage(guarantee=guarantee, partitions=partitions)
        self.seen = Seen()
        for bundle in (OLD, GOOD):
            self.store.save(bundle)
        self.store.promote(OLD.version)
        self.models: list[weakref.ref[Model]] = []

    def build(self, bundle: Bundle) -> Model:
        model = Model(bundle)
        self.models.append(weakref.ref(model))
        return model

    def worker(self, *, canary: int = RECORDS, shadow: str | None = None, name: str = "worker") -> Worker:
        def make_rollout(model: Model) -> StoreRollout:
            self.watcher = ModelWatcher(
                self.store, self.build, current=model.bundle.version, events=self.seen, shadow=shadow
            )
            return StoreRollout(
                self.watcher,
                model,
                Pairing(threshold_factory(), JsonDecoder(), canary),
                events=self.seen,
                wall_clock=lambda: NOW,
            )

        return self.stage.worker(name, rollout=make_rollout)

    def drain(self, worker: Worker, each_step: Callable[[int], None] = lambda _: None) -> None:
        steps = 0
        while not self.stage.is_drained():
            each_step(steps)
            self.watcher.check()
            worker.loop.step()
            steps += 1
            assert steps < 1_000

    def put(self, bundle: Bundle) -> None:
        self.store.save(bundle)
        self.store.promote(bundle.version)


@pytest.fixture
def site(tmp_path: Path) -> Site:
    return Site(tmp_path)


def stream(count: int, seed: int = 5) -> list[Message]:
    return messages(traffic.rows(count, seed))


def scored_once(site: Site, count: int) -> bool:
    """Every record has exactly one score, of one version."""
    places = Counter((s["source"]["partition"], s["source"]["offset"]) for s in site.stage.published("scores"))
    return len(places) == count and set(places.values()) == {1}


@pytest.mark.parametrize("guarantee", BOTH)
@pytest.mark.parametrize("kind", ["noise", "scale"])
def test_a_bad_version_that_was_forced_in_is_rolled_back_within_its_canary(
    tmp_path: Path, kind: str, guarantee: Guarantee
) -> None:
    site = Site(tmp_path, guarantee)
    bad = fit(noise(1_000, 3)) if kind == "noise" else broken_scale(GOOD, 0.1)
    site.stage.feed(stream(RECORDS + 1_000))
    worker = site.worker()

    site.drain(worker, lambda step: site.put(bad) if step == 3 else None)

    assert worker.seen.swaps == [(OLD.version, bad.version), (bad.version, OLD.version)]
    assert site.seen.verdicts[0].figures["records"] <= RECORDS
    assert site.store.current() == OLD.version
    mark = site.store.marks()[bad.version]
    assert (mark.status, mark.by, mark.at) == (Status.ROLLED_BACK, "worker", NOW)
    assert mark.why == site.seen.verdicts[0].why
    assert scored_once(site, RECORDS + 1_000)


def test_a_good_version_stays_and_the_one_before_it_is_let_go(site: Site) -> None:
    site.stage.feed(stream(RECORDS + 1_000))
    worker = site.worker()

    site.drain(worker, lambda step: site.store.promote(GOOD.version) if step == 3 else None)

    assert worker.seen.swaps == [(OLD.version, GOOD.version)]
    assert [verdict.passed for verdict in site.seen.verdicts] == [True]
    assert site.store.current() == GOOD.version


def test_the_thresholds_of_the_version_that_comes_back_go_on_and_are_saved_whole_at_once(site: Site) -> None:
    here = Partition("in", 0)
    site.stage.feed(stream(RECORDS))
    worker = site.worker()
    for _ in range(12):
        worker.loop.step()
    before = worker.pipeline.threshold(here).policy.threshold()
    site.put(broken_scale(GOOD, 0.1))
    while len(worker.seen.swaps) < 2:
        site.watcher.check()
        worker.loop.step()
    after = worker.pipeline.threshold(here).policy.threshold()
    worker.die()
    saved = site.stage.broker.offsets(GROUP)[here]
    restarted = site.worker(name="restarted")
    site.drain(restarted)

    assert restarted.seen.restored == {here: saved}
    assert restarted.seen.rebuilt == {}
    assert after == pytest.approx(before, rel=0.3)


def test_while_the_store_is_away_the_old_version_stays_current_and_is_written_back_later(site: Site) -> None:
    bad = broken_scale(GOOD, 0.1)
    site.stage.feed(stream(RECORDS))
    worker = site.worker()

    def disturb(step: int) -> None:
        if step == 3:
            site.put(bad)
            site.store.away = True

    site.drain(worker, disturb)
    still = site.store.current()
    site.store.away = False
    site.watcher.check()

    assert worker.seen.swaps == [(OLD.version, bad.version), (bad.version, OLD.version)]
    assert still == bad.version
    assert site.store.current() == OLD.version
    assert worker.pipeline.model.bundle.version == OLD.version


def test_a_version_that_comes_during_a_canary_has_to_prove_itself_against_the_last_proven_one(site: Site) -> None:
    bad = broken_scale(GOOD, 0.1)
    site.stage.feed(stream(RECORDS))
    worker = site.worker()

    def promote(step: int) -> None:
        if step == 3:
            site.store.promote(GOOD.version)
        if step == 5:
            site.put(bad)

    site.drain(worker, promote)

    assert site.seen.canaries[:2] == [(GOOD.version, OLD.version), (bad.version, OLD.version)]
    assert worker.seen.swaps[2] == (bad.version, OLD.version)
    assert site.store.marks()[bad.version].status == Status.ROLLED_BACK
    assert worker.pipeline.model.bundle.version == GOOD.version  # the store's version before the bad one
    assert site.seen.canaries[2:] == [(GOOD.version, OLD.version)]


def test_a_rollback_by_somebody_else_is_followed_without_a_canary_and_without_a_new_threshold(site: Site) -> None:
    site.stage.feed(stream(3_000))
    worker = site.worker()
    held = worker.pipeline.model

    def steer(step: int) -> None:
        if step == 10:
            site.store.promote(GOOD.version)
        if step == 14:
            site.store.rollback()

    site.drain(worker, steer)

    assert worker.pipeline.model is held
    assert site.seen.canaries == [(GOOD.version, OLD.version)]
    assert site.seen.verdicts == []
    assert site.seen.dropped == [GOOD.version]


def test_without_a_canary_a_bad_version_stays(site: Site) -> None:
    bad = broken_scale(GOOD, 0.1)
    site.stage.feed(stream(RECORDS))
    worker = site.worker(canary=0)

    site.drain(worker, lambda step: site.put(bad) if step == 3 else None)

    assert worker.seen.swaps == [(OLD.version, bad.version)]


def test_a_shadow_scores_a_sample_and_publishes_nothing(site: Site) -> None:
    site.stage.feed(stream(21_000))
    worker = site.worker(shadow=GOOD.version)

    site.drain(worker)

    assert {score["model_version"] for score in site.stage.published("scores")} == {OLD.version}
    assert {alert["model_version"] for alert in site.stage.published("alerts")} == {OLD.version}
    assert scored_once(site, 21_000)
    assert 0 < 21_000 / 8 - site.seen.shadow_records < 700  # a tile, and chance
    assert [(report.version, report.candidate) for report in site.seen.reports] == [(OLD.version, GOOD.version)]


@pytest.mark.parametrize("guarantee", BOTH)
def test_twelve_swaps_under_load_score_every_record_once_and_keep_two_models_at_most(
    tmp_path: Path, guarantee: Guarantee
) -> None:
    site = Site(tmp_path, guarantee, partitions=2)
    rows = traffic.rows(5_200, 5)
    site.stage.feed(messages(rows[:2_600]) + messages(rows[2_600:], partition=1))
    worker = site.worker(canary=RECORDS)
    alive: list[int] = []

    def swap(step: int) -> None:
        if step % 4 == 2:
            site.store.promote((GOOD if len(alive) % 2 == 0 else OLD).version)
            gc.collect()
            alive.append(sum(reference() is not None for reference in site.models))

    site.drain(worker, swap)

    assert len(worker.seen.swaps) >= 12
    assert scored_once(site, 5_200)
    assert max(alive) <= 2
    assert site.stage.broker.offsets(GROUP) == {Partition("in", number): 2_600 for number in (0, 1)}
