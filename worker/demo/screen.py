"""What the demo shows: alerts as they come above one line of progress in a terminal, plain lines when piped."""

import time
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from datetime import datetime
from typing import Any

from rich.console import Console
from rich.live import Live
from rich.table import Table
from rich.text import Text

from worker.demo.anomalies import Planted
from worker.demo.ledger import MAX_FALSE_SHARE, MIN_RECALL, Summary
from worker.features.learned import MISSING_PATTERN

PLAIN_STATUS_EVERY_S = 10.0
PLAIN_WIDTH = 132
WHEN_WIDTH, SCORE_WIDTH, TRUTH_WIDTH = 14, 16, 22
NARROW_REASON = 30


class Screen:
    """Writes to one console; every method may be called at any time."""

    def __init__(self, console: Console | None = None) -> None:
        self._console = console or Console(highlight=False)
        self._live: Live | None = None
        self._status_at = 0.0
        width = self._console.width if self._console.is_terminal else PLAIN_WIDTH
        left = width - WHEN_WIDTH - SCORE_WIDTH
        self._wide = (left - TRUTH_WIDTH) // 2 >= NARROW_REASON
        self._reason_width = (left - TRUTH_WIDTH if self._wide else left - 3) // 2

    def line(self, text: Text | str = "") -> None:
        """One line."""
        self._console.print(text, soft_wrap=True)

    def step(self, what: str, detail: str) -> None:
        """One step of the preparation is done."""
        self.line(Text.assemble(("✓ ", "green"), (f"{what:<9}", "bold"), detail))

    @contextmanager
    def waiting(self, what: str) -> Iterator[None]:
        """A spinner while something takes its time; nothing when piped."""
        if not self._console.is_terminal:
            yield
            return
        with self._console.status(what, spinner="dots"):
            yield

    @contextmanager
    def live(self) -> Iterator[None]:
        """The stretch in which alerts come; keeps the status line below them."""
        self.line()
        why = "observed → expected".ljust(2 * self._reason_width)
        truth = "truth" if self._wide else ""
        self.line(Text(f"{'when':<{WHEN_WIDTH}}{'score / limit':<{SCORE_WIDTH}}{why}{truth}", "bold"))
        if not self._wide:
            self.line(Text("● planted  ○ not planted", "dim"))
        self._status_at = time.monotonic()
        if not self._console.is_terminal:
            yield
            return
        with Live(console=self._console, refresh_per_second=8, transient=True) as self._live:
            yield
        self._live = None

    def alert(self, alert: Mapping[str, Any], planted: Planted | None) -> None:
        """One alert: time of the payment, score and threshold, the two fields that explain it, and the truth."""
        score = f"{alert['score']:.3f}"
        text = Text()
        text.append(_when(alert["event_time"]).ljust(WHEN_WIDTH), "dim")
        text.append(score, "bold red" if alert["severity"] == "critical" else "bold")
        text.append(f" / {alert['threshold']:.3f}".ljust(SCORE_WIDTH - len(score)), "dim")
        for reason in _telling(alert["explanation"]):
            text.append_text(_fitted(_reason(reason), self._reason_width))
        text.pad_right(max(0, WHEN_WIDTH + SCORE_WIDTH + 2 * self._reason_width - text.cell_len))
        style = "yellow" if planted is None else "green"
        if self._wide:
            text.append("not planted" if planted is None else planted.kind.replace("_", " "), style)
        else:
            text.append("○" if planted is None else "●", style)
        self.line(text)

    def status(self, *, clock: str, sent: int, scored: int, per_second: float, alerts: int, left_s: float) -> None:
        """The line of progress; when piped, one every 10 s."""
        if self._live is None and time.monotonic() - self._status_at < PLAIN_STATUS_EVERY_S:
            return
        self._status_at = time.monotonic()
        text = Text.assemble(
            (f"… {_moment(clock):%a %d %b %H:%M}" if clock else "…", "cyan"),
            f"  {sent:,} sent  {scored:,} scored  ",
            (f"{per_second:,.0f} records/s", "bold"),
            f"  {alerts} alerts  ",
            f"{left_s:.0f} s left" if left_s > 0 else "finishing",
        )
        if self._live is None:
            self.line(text)
        else:
            self._live.update(text)

    def summary(self, summary: Summary, notes: Sequence[str]) -> None:
        """The table at the end and the verdict."""
        table = Table(show_footer=True)
        table.add_column("planted anomalies", footer="all")
        table.add_column("planted", footer=str(summary.planted), justify="right")
        table.add_column("found", footer=str(summary.alerted), justify="right")
        table.add_column("share", footer=f"{summary.recall:.0%}", justify="right")
        for count in summary.kinds:
            share = count.alerted / count.planted
            shown = Text(f"{share:.0%}", "green" if share >= MIN_RECALL else "red")
            table.add_row(count.kind.replace("_", " "), str(count.planted), str(count.alerted), shown)
        self.line()
        self._console.print(table)
        false = f"{summary.false_alerts} of {summary.normal:,} normal payments ({summary.false_share:.2%})"
        self.line(f"false alerts: {false}")
        for note in notes:
            self.line(note)
        goal = f"at least {MIN_RECALL:.0%} of the planted, less than {MAX_FALSE_SHARE:.0%} of the normal ones alerted"
        verdict, style = ("passed", "bold green") if summary.passed else ("FAILED", "bold red")
        self.line(Text.assemble((verdict, style), f": {goal}"))


def _telling(reasons: Sequence[Mapping[str, Any]]) -> Sequence[Mapping[str, Any]]:
    """The two largest reasons, those first whose expected value isn't the observed one."""
    return sorted(reasons, key=lambda reason: bool(reason["observed"] == reason["expected"]))[:2]


def _reason(reason: Mapping[str, Any]) -> Text:
    """`field observed → expected`."""
    if reason["field"] == MISSING_PATTERN:
        return Text.assemble((str(reason["observed"]), "bold"))
    field, observed, expected = reason["field"], _short(reason["observed"]), _short(reason["expected"])
    return Text.assemble((f"{field} ", "cyan"), (observed, "bold"), (" → ", "dim"), expected)


def _fitted(text: Text, width: int) -> Text:
    text.truncate(width - 1, overflow="ellipsis")
    text.pad_right(width - text.cell_len)
    return text


def _short(value: Any) -> str:
    if value is None:
        return "(none)"
    if isinstance(value, float):
        return f"{value:,.2f}"
    if isinstance(value, str) and len(value) == len("2026-01-05T02:07:15Z") and value.endswith("Z"):
        return f"{_moment(value):%a %H:%M}"
    return str(value)


def _when(event_time: str | None) -> str:
    return f"{_moment(event_time):%a %d %H:%M}" if event_time else "-"


def _moment(value: str) -> datetime:
    return datetime.fromisoformat(value)
