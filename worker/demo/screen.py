"""What the demo shows: alerts as they come above one line of progress in a terminal, plain lines when piped."""

import time
from collections.abc import Iterator, Mapping, Sequence
from contextlib import AbstractContextManager, contextmanager, nullcontext
from datetime import datetime
from typing import Any

from rich.console import Console
from rich.live import Live
from rich.table import Table
from rich.text import Text

from worker.demo.anomalies import MAX_FALSE_SHARE, MIN_RECALL, Ledger, Planted, Summary
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

    def waiting(self, what: str) -> AbstractContextManager[object]:
        """A spinner while something takes its time; nothing when piped."""
        return self._console.status(what, spinner="dots") if self._console.is_terminal else nullcontext()

    @contextmanager
    def live(self) -> Iterator[None]:
        """The time in which alerts come; keeps the status line below them."""
        why, truth = "observed → expected".ljust(2 * self._reason_width), "truth" if self._wide else ""
        self.line()
        self.line(Text(f"{'when':<{WHEN_WIDTH}}{'score / limit':<{SCORE_WIDTH}}{why}{truth}", "bold"))
        if not self._wide:
            self.line(Text("● planted  ○ not planted", "dim"))
        self._status_at = time.monotonic()
        is_plain = not self._console.is_terminal
        live = nullcontext() if is_plain else Live(console=self._console, refresh_per_second=8, transient=True)
        with live as self._live:
            yield
        self._live = None

    def alert(self, alert: Mapping[str, Any], planted: Planted | None) -> None:
        """One alert: time of the payment, score and threshold, the two fields that explain it, and the truth."""
        score = f"{alert['score']:.3f}"
        when = f"{datetime.fromisoformat(alert['event_time']):%a %d %H:%M}" if alert["event_time"] else "-"
        text = Text.assemble((when.ljust(WHEN_WIDTH), "dim"))
        text.append(score, "bold red" if alert["severity"] == "critical" else "bold")
        text.append(f" / {alert['threshold']:.3f}".ljust(SCORE_WIDTH - len(score)), "dim")
        # The two largest reasons, but those last whose expected value is the observed one: they tell a reader nothing.
        reasons = sorted(alert["explanation"], key=lambda reason: bool(reason["observed"] == reason["expected"]))
        for words in map(_reason, reasons[:2]):
            words.truncate(self._reason_width - 1, overflow="ellipsis")
            words.pad_right(self._reason_width - words.cell_len)
            text.append_text(words)
        text.pad_right(max(0, WHEN_WIDTH + SCORE_WIDTH + 2 * self._reason_width - text.cell_len))
        truth = "not planted" if planted is None else planted.kind.replace("_", " ")
        mark = "○" if planted is None else "●"
        self.line(text.append(truth if self._wide else mark, "yellow" if planted is None else "green"))

    def status(self, ledger: Ledger, *, clock: str, scored: int, per_second: float, left_s: float) -> None:
        """The line of progress; when piped, one every 10 s."""
        if self._live is None and time.monotonic() - self._status_at < PLAIN_STATUS_EVERY_S:
            return
        self._status_at = time.monotonic()
        text = Text.assemble(
            (f"… {datetime.fromisoformat(clock):%a %d %b %H:%M}" if clock else "…", "cyan"),
            f"  {ledger.sent:,} sent  {scored:,} scored  ",
            (f"{per_second:,.0f} records/s", "bold"),
            f"  {ledger.alerts} alerts  ",
            f"{left_s:.0f} s left" if left_s > 0 else "finishing",
        )
        if self._live is None:
            self.line(text)
        else:
            self._live.update(text)

    def summary(self, summary: Summary, notes: Sequence[str]) -> None:
        """The table at the end and the verdict."""
        planted, alerted = summary.total
        table = Table(show_footer=True)
        table.add_column("planted anomalies", footer="all")
        table.add_column("planted", footer=str(planted), justify="right")
        table.add_column("found", footer=str(alerted), justify="right")
        table.add_column("share", footer=f"{summary.recall:.0%}", justify="right")
        for kind, (planted, alerted) in summary.kinds.items():
            share = alerted / planted
            shown = Text(f"{share:.0%}", "green" if share >= MIN_RECALL else "red")
            table.add_row(kind.replace("_", " "), str(planted), str(alerted), shown)
        self.line()
        self._console.print(table)
        false = f"{summary.false_alerts} of {summary.normal:,} normal payments ({summary.false_share:.2%})"
        for note in (f"false alerts: {false}", *notes):
            self.line(note)
        goal = f"at least {MIN_RECALL:.0%} of the planted, less than {MAX_FALSE_SHARE:.0%} of the normal ones alerted"
        verdict = ("passed", "bold green") if summary.passed else ("FAILED", "bold red")
        self.line(Text.assemble(verdict, f": {goal}"))


def _reason(reason: Mapping[str, Any]) -> Text:
    """`field observed → expected`."""
    if reason["field"] == MISSING_PATTERN:
        return Text.assemble((str(reason["observed"]), "bold"))
    observed, expected = _short(reason["observed"]), _short(reason["expected"])
    return Text.assemble((f"{reason['field']} ", "cyan"), (observed, "bold"), (" → ", "dim"), expected)


def _short(value: Any) -> str:
    if value is None:
        return "(none)"
    if isinstance(value, float):
        return f"{value:,.2f}"
    if isinstance(value, str) and len(value) == len("2026-01-05T02:07:15Z") and value.endswith("Z"):
        return f"{datetime.fromisoformat(value):%a %H:%M}"
    return str(value)
