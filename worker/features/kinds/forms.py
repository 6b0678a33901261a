"""Texts with a form of their own: URLs and paths, user agents, domain names, command lines."""

import re
from collections.abc import Callable
from dataclasses import dataclass

from typing_extensions import override

from worker.features.kinds.evidence import MIN_ROWS, Evidence, Sample, Strength
from worker.features.kinds.masks import DOMAINS, MAX_TEMPLATE, MAX_TEXT, masked
from worker.features.kinds.text import Text

NEARLY_ALL = 0.95  # share of the values that have the form
MANY = 0.05  # share of distinct values from which on a form says more than a vocabulary
MIN_FLAGS = 0.3  # share of command lines with a flag
MAX_PROGRAMS = 0.2  # distinct programs in a command line

_URL = re.compile(r"(?:[A-Za-z][A-Za-z0-9+.-]{1,15}://|/)\S*")
_URL_PARTS = re.compile(r"(?:([A-Za-z][A-Za-z0-9+.-]*://)([^/?#]*))?([^?#]*)(?:\?([^#]*))?")
_HEX = "[0-9a-fA-F]"
_SEGMENT = re.compile(
    rf"""(?P<uuid>{_HEX}{{8}}-(?:{_HEX}{{4}}-){{3}}{_HEX}{{12}})
      | (?P<hex>(?=\d*+[a-fA-F])(?=[a-fA-F]*+\d){_HEX}{{8,}}+)
      | (?P<id>(?=(?:[A-Za-z_-]*+\d){{4}})(?=[\d_-]*+[A-Za-z])[A-Za-z0-9_-]{{16,}}+) | (?P<num>\d++)""",
    re.VERBOSE,
)
_RELEASE = re.compile(r"v\d{1,2}")
_WORD = re.compile(r"[A-Za-z0-9_.~-]{1,64}")
_AGENT = re.compile(r"[A-Za-z][\w.+ -]{0,60}/v?\d")
_VERSION = re.compile(r"/[^\s;)]*\d[^\s;)]*|(?<![A-Za-z0-9_])[vV]?\d[\w.+-]*|(?<=[a-z])\d+\.[\d.]+")
_DOMAIN = re.compile(rf"(?:[A-Za-z0-9_-]{{1,63}}\.){{1,20}}(?:{DOMAINS}|[a-z]{{2}})\.?")
_SECOND_LEVEL = frozenset({"ac", "co", "com", "edu", "gov", "net", "or", "org"})
_BIN = re.compile(r"(?:(?<=^)|(?<=[|;&(]\s)|(?<=[|;&(]))(?:/usr)?(?:/local)?/s?bin/(?=[^\s/]+)")
_PROGRAM = re.compile(r"[\w.~/+-]{1,200}")
_FLAG = re.compile(r"\s-{1,2}[A-Za-z]")


def _share(sample: Sample, holds: Callable[[str], object]) -> float:
    return sum(1 for value in sample.values if holds(value)) / len(sample.values)


def _varies(sample: Sample) -> bool:
    return sample.types == {str} and sample.distinct >= max(MIN_ROWS, MANY * len(sample.values))


def _evidence(sample: Sample, holds: Callable[[str], object], what: str) -> Evidence | None:
    """That nearly all values have a form, and enough of them differ."""
    return Evidence(Strength.FORM, what) if _varies(sample) and _share(sample, holds) >= NEARLY_ALL else None


@dataclass(frozen=True)
class Url(Text):
    """A URL or a path: its template has scheme and host, the segments of the path, and the keys of the query with what
    sort of value they have.

    >>> Url.reduce("https://shop.example.com/v1/users/4711?sort=up&q=a%20b")[0]
    'https://shop.example.com /v1 /users /<num> ?q=<other> ?sort=<word>'
    """

    kind, expected = "url", "a URL"

    @classmethod
    @override
    def infer(cls, sample: Sample) -> Evidence | None:
        return _evidence(sample, _URL.fullmatch, "URLs or paths")

    @staticmethod
    @override
    def reduce(text: str) -> tuple[str, list[str]]:
        parts = _URL_PARTS.match("".join(text[:MAX_TEXT].split()))
        scheme, host, path, query = ("", "", "", "") if parts is None else (part or "" for part in parts.groups())
        values: list[str] = []

        def mask(match: re.Match[str]) -> str:
            values.append(match[0] if match.lastgroup == "num" else "")
            return f"<{match.lastgroup}>"

        tokens = [scheme.lower() + _SEGMENT.sub(mask, host.lower())] if scheme else []
        segments = path.removeprefix("/").split("/") if path else []
        tokens += ["/" + (part if _RELEASE.fullmatch(part) else _SEGMENT.sub(mask, part)) for part in segments]
        for pair in sorted({pair.partition("=")[0]: pair for pair in query.split("&") if pair}.items()):
            key, _, value = pair[1].partition("=")
            sort = "num" if value.isdigit() else "word" if _WORD.fullmatch(value) else "other"
            tokens.append(f"?{_SEGMENT.sub(mask, key)}" + (f"=<{sort}>" if value else ""))
            values += [value if sort != "other" else ""] if value else []
        return " ".join(tokens)[:MAX_TEMPLATE], values


@dataclass(frozen=True)
class Agent(Text):
    """A user agent: its products and platforms, without their versions.

    >>> Agent.reduce("Mozilla/5.0 (X11; Linux x86_64; rv:120.0) Gecko/20100101 Firefox/120.0")[0]
    'Mozilla (X11; Linux x86_64; rv:) Gecko Firefox'
    """

    kind, expected = "agent", "a user agent"

    @classmethod
    @override
    def infer(cls, sample: Sample) -> Evidence | None:
        is_agent = sample.types == {str} and sample.distinct >= MIN_ROWS and _share(sample, _AGENT.match) >= NEARLY_ALL
        return Evidence(Strength.FORM, "user agents") if is_agent else None

    @staticmethod
    @override
    def reduce(text: str) -> tuple[str, list[str]]:
        return " ".join(_VERSION.sub("", text[:MAX_TEXT]).split())[:MAX_TEMPLATE], []


@dataclass(frozen=True)
class Domain(Text):
    """A domain name: what was registered, and how many labels lie below it. The end of a name that is registered is
    guessed by its form, `co.uk` and the like, not looked up.

    >>> Domain.reduce("a.b.Example.co.uk")[0]
    '*.*.example.co.uk'
    """

    kind, expected = "domain", "a domain name"

    @classmethod
    @override
    def infer(cls, sample: Sample) -> Evidence | None:
        return _evidence(sample, _DOMAIN.fullmatch, "domain names")

    @staticmethod
    @override
    def reduce(text: str) -> tuple[str, list[str]]:
        labels = "".join(text[:MAX_TEXT].lower().split()).strip(".").split(".")
        is_long = len(labels) > 2 and len(labels[-1]) == 2 and labels[-2] in _SECOND_LEVEL
        registered = 3 if is_long else 2
        return ("*." * len(labels[:-registered]) + ".".join(labels[-registered:]))[-MAX_TEMPLATE:], []


@dataclass(frozen=True)
class Command(Text):
    """A command line: its programs without the usual folders of programs, its flags, and placeholders for what else
    has a form. Quotations are looked into, for what they hold is run as well.

    >>> Command.reduce("/usr/bin/curl -s http://10.0.0.7/a.sh | bash -c 'id -u'")[0]
    'curl -s <url> | bash -c id -u'
    """

    kind, expected = "command", "a command line"

    @classmethod
    @override
    def infer(cls, sample: Sample) -> Evidence | None:
        if not _varies(sample) or _share(sample, _FLAG.search) < MIN_FLAGS:
            return None
        programs = [value.split(None, 1)[0] for value in sample.values if value.strip()]
        named = sum(1 for program in programs if _PROGRAM.fullmatch(program))
        is_command = named >= NEARLY_ALL * len(sample.values) and len(set(programs)) <= MAX_PROGRAMS * len(programs)
        return Evidence(Strength.FORM, "command lines") if is_command else None

    @staticmethod
    @override
    def reduce(text: str) -> tuple[str, list[str]]:
        line, values = masked(_BIN.sub("", text[:MAX_TEXT].replace('"', " ").replace("'", " ").strip()))
        return " ".join(line.split()), values
