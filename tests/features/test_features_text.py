"""Text fields: templates, what stands at their slots, and how far a text is from what is known."""

import random
from collections.abc import Callable
from dataclasses import asdict, replace
from typing import Any

import numpy as np
import orjson
import pytest

from tests.features.common import decoded, encode, one_field
from worker.errors import BundleError
from worker.features.fitted import Fitted
from worker.features.kinds import Text, templates
from worker.features.kinds.lexicon import MAX_SLOT_VALUES, MAX_TEMPLATES, TextReader, TextReading, fit_lexicon
from worker.features.kinds.masks import MAX_TEMPLATE, masked, template
from worker.features.kinds.templates import MAX_LEAF, TemplateTree, learn_templates
from worker.features.learned import UNKNOWN_ID, Lexicon
from worker.features.schema import parse_schema
from worker.features.vectorize import Vectorizer, conceal, fit_vectorizer
from worker.redaction import Redaction

USERS = [f"{first}{last}" for first in ("al", "be", "ca", "do") for last in ("an", "en", "in")]


def log_lines(count: int, seed: int = 0, month: str = "Mar") -> list[str]:
    """A month of a small machine's log."""
    draw = random.Random(seed)
    lines = []
    for n in range(count):
        user, address, port = draw.choice(USERS), f"10.0.0.{draw.randrange(9)}", draw.randrange(1024, 65536)
        body = draw.choice(
            [
                f"sshd[{port}]: Accepted password for {user} from {address} port {port} ssh2",
                f"api[77]: GET /v1/orders/{draw.randrange(10**6)} status {draw.choice([200, 200, 304, 404])}",
                f"cron[{port}]: ({draw.choice(['root', 'backup'])}) CMD run-parts /etc/cron.hourly",
                f"{user} left the shell after {draw.randrange(1, 500)} s",
            ]
        )
        day = 1 + n * 28 // count
        lines.append(f"{month} {day:2d} {n % 24:02d}:{draw.randrange(60):02d}:07 web-{draw.randrange(3)} {body}")
    return lines


LINES = log_lines(4000)
SCHEMA, FITTED = one_field("text", LINES)
LEXICON = FITTED.lexicons[0]
TEMPLATES = (
    "<time> web-<num> <*> left the shell after <num> s",
    "<time> web-<num> api[<num>]: GET <path> status <num>",
    "<time> web-<num> sshd[<num>]: Accepted password for <*> from <ip> port <num> ssh<num>",
    "<time> web-<num> cron[<num>]: (backup) CMD run-parts <path>",
    "<time> web-<num> cron[<num>]: (root) CMD run-parts <path>",
)


def read(text: str, lexicon: Lexicon = LEXICON) -> TextReading:
    return TextReader(lexicon, masked).read(text)


def test_texts_of_one_sort_have_one_template_with_wildcards_where_they_differ() -> None:
    assert set(LEXICON.templates) == set(TEMPLATES)


def test_what_is_learned_depends_on_no_order() -> None:
    shuffled = random.Random(1).sample(LINES, len(LINES))

    assert fit_lexicon("x", shuffled, 1024, masked) == LEXICON


def test_the_next_month_has_no_new_template_and_no_rare_one() -> None:
    readings = [read(line) for line in log_lines(1000, seed=2, month="Apr")]

    assert all(reading.template >= 0 for reading in readings)
    assert sum(reading.rarity > 2 for reading in readings) < 20


@pytest.mark.parametrize(
    "text",
    [
        "Apr 2 10:00:00 web-1 sshd[7]: Accepted password for root from 10.0.0.1 port 2048 ssh2",
        "Apr 2 10:00:00 web-1 sshd[7]: Accepted password for alan from 198.18.0.1 port 2048 ssh2",
        "Apr 2 10:00:00 web-1 api[77]: GET /v1/orders/17 status 500",
        "Apr 2 10:00:00 web-1 api[77]: GET /etc/passwd status 200",
        "Apr 2 10:00:00 web-1 cron[7]: (root) CMD run-parts /tmp/.x/run.sh",
        "Apr 2 10:00:00 web-1 mallory left the shell after 7 s",
    ],
)
def test_an_unusual_value_in_a_known_template_is_rare(text: str) -> None:
    usual = [read(line).rarity for line in log_lines(200, seed=3)]

    reading = read(text)

    assert reading.template >= 0
    assert reading.rarity > 2.5 > np.quantile(usual, 0.98)


@pytest.mark.parametrize(
    "text",
    [
        "Apr 2 10:00:00 web-1 sshd[99999999]: Accepted password for alan from 10.0.0.1 port 2047 ssh2",
        "Apr 2 10:00:00 web-1 api[77]: GET /v1/orders/17000000000 status 200",
        "Apr 2 10:00:00 web-1 alan left the shell after 1234 s",
    ],
)
def test_a_number_that_counts_something_is_not_rare_because_it_is_new(text: str) -> None:
    assert read(text).rarity < 2


def test_a_session_of_some_lines_makes_no_number_a_name() -> None:
    lines = [f"worker job {session} did step {'abcd'[step]}" for session in range(500, 900, 2) for step in range(4)]

    lexicon = fit_lexicon("x", lines, 100, masked)

    assert read("worker job 901 did step a", lexicon).rarity < 1


def test_a_text_that_no_template_covers_is_new_by_its_trigrams() -> None:
    near = read("Apr 2 10:00:00 web-1 sshd[7]: Accepted password for alan and alen from 10.0.0.1 port 2048 ssh2")
    far = read("Apr 2 10:00:00 web-1 kernel: Out of memory, killed java")

    assert near.template == far.template == -1
    assert 0 < near.novelty < 0.2
    assert 0.5 < far.novelty <= 1
    assert near.rarity == far.rarity == LEXICON.unseen > 3


def test_where_new_texts_are_usual_another_one_is_not_rare() -> None:
    draw = random.Random(0)
    texts = ["".join(draw.choices("abcdefghij ", k=40)) for _ in range(300)]

    assert fit_lexicon("x", texts, 100, masked).unseen < 0.1


def test_any_number_of_sorts_of_text_leaves_a_bounded_lexicon(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(templates, "MAX_LINES", 500)
    draw = random.Random(0)
    words = ["".join(draw.choices("abcdefghij", k=6)) for _ in range(3000)]
    texts = [" ".join(draw.choices(words, k=8)) for _ in range(4000)]

    lexicon = fit_lexicon("x", [*texts, *LINES], 1_000_000, masked)

    assert set(TEMPLATES) <= set(lexicon.templates)
    assert len(lexicon.templates) <= MAX_TEMPLATES
    assert len(orjson.dumps(asdict(lexicon))) < 3 << 20


def test_a_leaf_of_the_tree_is_bounded() -> None:
    draw = random.Random(0)
    texts = [f"the same start {' '.join(draw.choices('abcdefghijklmnopqrst', k=9))}" for _ in range(2000)] * 2

    assert len(learn_templates(texts, 1000)) <= MAX_LEAF


def test_a_slot_with_too_many_values_is_open() -> None:
    texts = [f"mail for {'abcdefghij'[n % 10]}{n // 10 % 500:x}zz" for n in range(8 * MAX_SLOT_VALUES)]

    assert fit_lexicon("x", texts, 100, masked).slots == ()


def test_a_tree_prefers_the_token_itself_to_a_wildcard() -> None:
    tree = TemplateTree(["a <*> c", "a b <*>", "a <*> d"])

    matches = [tree.match(line) for line in ("a b c", "a x c", "a x d", "a x y", "a")]

    assert [match and match.template for match in matches] == [1, 0, 2, None, None]


@pytest.mark.parametrize("text", ["", " ", "<*>", "<num> <*>", "a" * 100_000, "a " * 5000, "\n\t", "\ud800 7"])
def test_any_text_is_learned_and_read(text: str) -> None:
    lexicon = fit_lexicon("x", [text] * 30, 10, masked)

    reading = read(text, lexicon)

    assert 0 <= reading.rarity < 3
    assert all(len(entry) <= MAX_TEMPLATE for entry in lexicon.templates)


def test_the_model_sees_template_length_novelty_and_rarity() -> None:
    vectors = encode(SCHEMA, FITTED, [LINES[0], "something else", None])

    assert [column.part for column in FITTED.numeric] == ["length", "novelty", "rarity"]
    assert FITTED.categorical[0].values == FITTED.lexicons[0].templates
    assert FITTED.categorical[0].value(int(vectors.category_ids[0, 0])) in TEMPLATES
    assert vectors.category_ids[1:, 0].tolist() == [UNKNOWN_ID, 1]
    assert vectors.numeric[1, 1:].min() > 3
    assert np.abs(vectors.numeric[0]).max() < 3


def test_a_text_seen_once_in_a_fit_is_as_unknown_as_a_new_one() -> None:
    schema, fitted = one_field("text", [*LINES, "nobody has ever seen this"])

    assert encode(schema, fitted, ["nobody has ever seen this", "nor that"]).category_ids[:, 0].tolist() == [0, 0]


HIDDEN: list[tuple[str, Redaction]] = [
    ('[fields.message]\nkind = "text"\nredact = true', Redaction(["message"], secret="s")),
    ('[fields."a.message"]\nkind = "text"', Redaction(["a"], secret="s")),
]


@pytest.mark.parametrize(("toml", "redaction"), HIDDEN)
def test_nothing_of_a_redacted_text_is_in_what_a_fit_keeps(toml: str, redaction: Redaction) -> None:
    schema = parse_schema(toml + '\n[fields.x]\nkind = "numeric"')
    name = schema.fields[0].name
    rows = [{name: line, "x": at} for at, line in enumerate(LINES)]

    fitted = fit_vectorizer(schema, rows, redaction=redaction)
    kept = orjson.dumps([fitted.to_json(), conceal(fitted, redaction, rows[:100])])

    assert fitted.lexicons == ()
    assert [column.part for column in fitted.numeric] == ["length", "value"]
    for word in (b"sshd", b"Accepted", b"alan", b"10.0.0", b"<time>", b"/v1"):
        assert word not in kept
    assert Vectorizer(fitted, redaction).transform(decoded(rows[:9])).category_ids[:, 0].min() > 1


def test_a_text_that_is_redacted_after_the_fit_is_read_as_before_and_shown_no_more() -> None:
    redaction = Redaction(["x"], secret="s")
    plain, hidden = Vectorizer(FITTED), Vectorizer(FITTED, redaction)
    rows = [{"x": line} for line in [*LINES[:50], "something else"]]

    before, after = plain.transform(decoded(rows)), hidden.transform(decoded(rows))
    kept = conceal(hidden.fitted, redaction, rows)

    assert before.numeric.tobytes() == after.numeric.tobytes()
    assert before.category_ids.tobytes() == after.category_ids.tobytes()
    assert b"web" not in orjson.dumps([kept, hidden.fitted.categorical[0].values, hidden.fitted.describe("x")])


def _changed(change: Callable[[dict[str, Any]], Any]) -> dict[str, Any]:
    data: dict[str, Any] = orjson.loads(orjson.dumps(FITTED.to_json()))
    change(data["lexicons"][0])
    return data


@pytest.mark.parametrize(
    ("change", "said"),
    [
        (lambda lexicon: lexicon.update(field="y"), "nothing is learned"),
        (lambda lexicon: lexicon["templates"].append("a" * 513), "too long"),
        (lambda lexicon: lexicon["templates"].append(TEMPLATES[0]), "twice"),
        (lambda lexicon: lexicon["rarities"].pop(), "without a rarity"),
        (lambda lexicon: lexicon.update(unseen=-1.0), "rarity"),
        (lambda lexicon: lexicon["slots"][0].update(template=99), "slots of other"),
        (lambda lexicon: lexicon["slots"].append(lexicon["slots"][0]), "twice"),
        (lambda lexicon: lexicon["slots"][0]["values"].update({"a" * 65: 1.0}), "too long"),
        (lambda lexicon: lexicon["slots"][0]["values"].update({"a": 1e9}), "rarity"),
        (lambda lexicon: lexicon.update(grams="AAAA"), "trigrams"),
        (lambda lexicon: lexicon.update(grams="?"), "lexicons"),
        (lambda lexicon: lexicon.update(more=1), "unknown"),
    ],
)
def test_a_lexicon_that_could_not_be_learned_is_a_bundle_error(
    change: Callable[[dict[str, Any]], Any], said: str
) -> None:
    with pytest.raises(BundleError, match=said):
        Fitted.from_json(_changed(change), SCHEMA)


def test_a_bundle_without_the_lexicon_of_its_numbers_is_a_bundle_error() -> None:
    with pytest.raises(BundleError, match="none of this schema"):
        Fitted.from_json(replace(FITTED, lexicons=()).to_json(), SCHEMA)


def test_a_lexicon_of_a_redacted_field_is_a_bundle_error() -> None:
    with pytest.raises(BundleError, match="nothing is learned"):
        Fitted.from_json(replace(FITTED, redacted=("x",)).to_json(), SCHEMA)


def test_texts_drift_by_their_templates() -> None:
    same, changed = log_lines(500, seed=4), [f"Apr 1 10:00:00 db-1 vacuum of table_{n % 7} done" for n in range(500)]

    assert Text("x").drift(LINES[:500], same)[0] < 0.2
    assert Text("x").drift(LINES[:500], changed)[0] > 0.9
    assert template(changed[0]) == "<time> db-<num> vacuum of table_<num> done"
