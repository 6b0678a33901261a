import time

import pytest
from hypothesis import given
from hypothesis import strategies as st

from tests.features.common import STEADY
from worker.features.kinds.masks import MAX_TEMPLATE, MAX_TEXT, masked, template

TIMES = [
    "2026-03-01",
    "2026-03-01 06:25:43",
    "2026-03-01T06:25:43.123456+01:00",
    "2026-03-01T06:25:43Z",
    "2026-03-01 06:25:43,123",
    "2026/03/01 06:25:43 UTC",
    "2026-03-01-06.25.43.123456",
    "20260301T062543Z",
    "20260301-06:25:43:123",
    "260301 062543",
    "01/03/2026 06:25",
    "26/03/01 06:25:43",
    "1.3.2026",
    "03-01 06:25:43.123",
    "Mar  1 06:25:43",
    "MAR 01 06:25:43",
    "Mar 1, 2026 6:25 PM",
    "March 1st, 2026",
    "1 March 2026",
    "Sun Mar 01 06:25:43 2026",
    "Sun, 01 Mar 2026 06:25:43 GMT",
    "Sun, 1 Mar 2026 06:25:43 +0100",
    "01/Mar/2026:06:25:43 +0000",
    "Sunday",
    "06:25:43",
    "6:25 pm",
    "1772346343",
    "1772346343.123",
    "1772346343123",
]


@pytest.mark.parametrize("text", TIMES)
def test_a_time_is_one_mask_however_it_is_written(text: str) -> None:
    assert template(text) == "<time>"
    assert template(f"at {text} it ended, [{text}]") == "at <time> it ended, [<time>]"


@pytest.mark.parametrize("text", [time for time in TIMES if "Mar" in time])
def test_no_template_changes_with_the_month(text: str) -> None:
    for name in ("Jan", "Feb", "Apr", "Jun", "Jul", "Aug", "Sep", "Oct", "Nov", "Dec"):
        month = text.replace("March", name).replace("Mar", name).replace("MAR", name.upper())

        assert template(f"{month} web-1 restarted") == "<time> web-<num> restarted"


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        ("retry 3 of 10", "retry <num> of <num>"),
        ("-5, +3, 1,234,567, 12.5, 1e-5", "<num>, <num>, <num>, <num>, <num>"),
        ("from 192.168.0.1:8080", "from <ip>:<num>"),
        ("src: /10.0.0.7:50010", "src: /<ip>:<num>"),
        ("from fe80:0:0:0:1:2:3:4", "from <ip>"),
        ("from fe80::1ff:fe23:4567:890a, ::1", "from <ip>, <ip>"),
        ("std::add of Foo::Bar", "std::add of Foo::Bar"),
        ("id 6fa459ea-ee8a-3ca4-894e-db77e160355e gone", "id <uuid> gone"),
        ("eth0 is 00:1a:2b:3c:4d:5e", "eth<num> is <mac>"),
        ("at 0xDEADbeef and deadbeef12", "at <hex> and <hex>"),
        ("block blk_-1608999687919862906", "block <id>"),
        ("pod api-7d9f8b6c5-x2x4z", "pod <id>"),
        ("12345678 123", "<num> <num>"),
        ("the facade decided", "the facade decided"),
        ("mail for bob@example.org", "mail for <email>"),
        ("get https://example.org/a?b=1, then", "get <url> then"),
        ("open web.example.com:5070", "open <host>:<num>"),
        ("org.apache.hadoop.dfs", "org.apache.hadoop.dfs"),
        ("read /var/log/a.txt or C:\\Temp\\a.txt", "read <path> or <path>"),
        ("km/h and/or", "km/h and/or"),
        ('"GET /a/b?c=1 HTTP/1.1" 200 12', '"GET <path> HTTP/<num>" <num> <num>'),
        ('name="Ann Lee" role="admin"', 'name=<quoted> role="admin"'),
        ('level=info msg="disk full"', 'level=info msg="disk full"'),
        ("it's full, don't 'su root' now", "it's full, don't <quoted> now"),
        ("for [TERM, HUP, INT] and [notice]", "for <list> and [notice]"),
        ("{'a': 1, 'b': 2}", "<list>"),
        ("12.5 MB in 3 ms, 45%", "<size> in <size>, <size>"),
        ("v1.2.3 and 1.2.3-rc1", "<version> and <version>"),
        ("may 5 users march 3 times, Sun made it", "may <num> users march <num> times, Sun made it"),
        ("", ""),
    ],
)
def test_templates_mask_what_always_differs(text: str, expected: str) -> None:
    assert template(text) == expected


def test_what_stands_at_a_mask_is_kept_unless_it_names_the_record_or_its_time() -> None:
    assert masked("Mar 1 06:25:43 from 10.0.0.7 port 22 id 0xff") == (
        "<time> from <ip> port <num> id <hex>",
        ["", "10.0.0.7", "22", ""],
    )


@STEADY
@given(st.text())
def test_any_text_has_a_short_template(text: str) -> None:
    assert len(template(text)) <= MAX_TEMPLATE
    assert masked(text)[0] == template(text)


@pytest.mark.parametrize(
    "piece",
    [
        *("a", "1", "_1", "a-", "a.", "a@", "1.", "1,", "1:", "ab:", "::", "0x", "/", "[", "[a,", "{a", '"', "'a "),
        *("a b'", "Mon ", "Mar 1 ", "1 ", "A://", "v1.", "1a", "- ", "1.1 "),
    ],
)
def test_no_text_takes_long(piece: str) -> None:
    text = piece * (1_000_000 // len(piece))

    start = time.process_time()
    template(text)

    assert time.process_time() - start < 10, MAX_TEXT
