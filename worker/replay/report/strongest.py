"""The ranked list of the strongest alerts: what was observed, and what the model expected."""

from collections.abc import Mapping, Sequence
from typing import Any

import orjson

from worker.replay.report.html import card, text
from worker.replay.report.pictures import Pictures
from worker.replay.run.labels import NORMAL as NORMAL_LABEL


def strongest_section(alerts: Sequence[tuple[bytes, str | None]], pictures: Pictures | None) -> str:
    """JSON and label of alerts, strongest first; with pictures where records form one."""
    if not alerts:
        return card("Strongest alerts", "<p>None.</p>")
    body = "".join(_alert(orjson.loads(value), label, pictures) for value, label in alerts)
    return card(f"The {len(alerts)} strongest alerts", body, "What was observed, and what the model expected.")


def _alert(alert: Mapping[str, Any], label: str | None, pictures: Pictures | None) -> str:
    verdict = f'<span class="tag true">{text(label)}</span>' if label else ""
    if label == NORMAL_LABEL:
        verdict = '<span class="tag false">labelled normal</span>'
    ids = " ".join(f"<code>{text(name)}={text(value)}</code>" for name, value in alert["ids"].items())
    reasons = "".join(_reason(reason) for reason in alert["explanation"])
    return (
        f'<article class="alert"><header><b>{text(alert["score"])}</b>'
        f'<span class="tag {text(alert["severity"])}">{text(alert["severity"])}</span>{verdict}'
        f'<span class="soft">{text(alert["event_time"] or "")}</span>{ids}</header>'
        f"{pictures.pair(alert['record']) if pictures else ''}"
        f'<div class="why">{reasons}</div><details><summary>record</summary><pre>{text(_pretty(alert["record"]))}</pre>'
        "</details></article>"
    )


def _reason(reason: Mapping[str, Any]) -> str:
    usual = ""
    if reason.get("typical"):
        low, high = reason["typical"]
        usual = f' <span class="soft">usually {text(low)} to {text(high)}</span>'
    note = f' <span class="soft">({text(reason["note"])})</span>' if reason.get("note") else ""
    width = max(1, round(100 * reason["share"]))
    return (
        f'<div class="field">{text(reason["field"])}<span class="share" style="width:{width}%"></span></div>'
        f'<div class="what"><b>{text(reason["observed"])}</b>{note}, expected {text(reason["expected"])}{usual}</div>'
    )


def _pretty(record: Any) -> str:
    return orjson.dumps(record, option=orjson.OPT_INDENT_2).decode()
