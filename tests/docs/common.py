"""The pages of the repository and their code blocks.

A fenced block is run or loaded by a test, in a way that its language and the comment right above it say:

    sh      is run, in a folder of its page (preloaded.py); after `<!-- settings only: REASON -->` its variables are
            loaded as settings, and its commands are parsed
    python  is run
    toml    `<!-- check: schema -->`, `<!-- check: silences -->` or `<!-- check: settings -->`
    json    `<!-- check: alert -->` or `<!-- check: score -->`
    text    is a drawing or an output, and not looked at

`<!-- not run: REASON -->` above a block of any language leaves it alone; the commands in it are parsed all the same.
"""

import json
import re
from collections.abc import Iterator
from dataclasses import dataclass
from functools import cache
from pathlib import Path

from jsonschema import Draft202012Validator

ROOT = Path(__file__).parents[2]
CHANGELOG = ROOT / "CHANGELOG.md"
PAGES = (ROOT / "README.md", ROOT / "CONTRIBUTING.md", *sorted((ROOT / "docs").glob("*.md")))
LANGUAGES = ("sh", "python", "toml", "json", "text")

_FENCE = re.compile(r"^```(\S*)\s*$")
_COMMENT = re.compile(r"^<!-- (not run|settings only|check): (.+?) -->$", re.DOTALL)


@dataclass(frozen=True, slots=True)
class Block:
    """One fenced block.

    line       of its opening fence, from 1
    mark       the word before the colon of the comment above it, empty where there is none
    detail     what follows the colon
    """

    page: str
    line: int
    language: str
    text: str
    mark: str = ""
    detail: str = ""

    def __str__(self) -> str:
        return f"{self.page}:{self.line}"


def name_of(page: Path) -> str:
    """A page's path in the repository."""
    return page.relative_to(ROOT).as_posix()


@cache
def text_of(page: Path) -> str:
    return page.read_text(encoding="utf-8")


@cache
def blocks_of(page: Path) -> tuple[Block, ...]:
    """The fenced blocks of a page, in order."""
    return tuple(_blocks(name_of(page), text_of(page)))


def _blocks(page: str, text: str) -> Iterator[Block]:
    lines = text.split("\n")
    start, language, mark, detail = 0, "", "", ""
    for number, line in enumerate(lines, 1):
        fence = _FENCE.match(line)
        if fence is None:
            continue
        if start == 0:
            start, language = number, fence[1]
            mark, detail = _comment_above(lines[: number - 1])
        else:
            yield Block(page, start, language, "\n".join(lines[start : number - 1]) + "\n", mark, detail)
            start = 0
    if start:
        raise ValueError(f"{page}:{start}: this block is not closed")


def _comment_above(lines: list[str]) -> tuple[str, str]:
    """The mark in the comment that ends on the last line, and its detail."""
    for begin in range(len(lines) - 1, -1, -1):
        if lines[begin].startswith("<!--"):
            comment = _COMMENT.match("\n".join(lines[begin:]))
            return (comment[1], " ".join(comment[2].split())) if comment else ("", "")
        if not lines[begin].strip() or "-->" in lines[begin][:-3]:
            break
    return "", ""


def prose_of(page: Path) -> str:
    """A page's text without its fenced blocks and comments; lines keep their numbers."""
    kept, inside = [], False
    for line in text_of(page).split("\n"):
        if _FENCE.match(line):
            inside = not inside
            kept.append("")
        else:
            kept.append("" if inside else line)
    return re.sub(r"<!--.*?-->", lambda comment: "\n" * comment[0].count("\n"), "\n".join(kept), flags=re.DOTALL)


def code_spans(page: Path) -> list[str]:
    """What stands between backticks in the prose, but for the glossary's words that are not to be used."""
    return re.findall(r"`([^`\n]+)`", prose_of(page).partition("\n## Not these\n")[0])


def commands_in(text: str) -> Iterator[str]:
    """The commands of a shell block: one a line, continued lines joined, comments and leading variables left out."""
    for line in text.replace("\\\n", " ").split("\n"):
        command = re.sub(r"^(\s*(export\s+)?[A-Z_]+=('[^']*'|\"[^\"]*\"|\S*))+\s*", "", line)
        command = re.sub(r"(^|\s)#.*$", "", command).strip()
        if command:
            yield command


def table_under(page: Path, heading: str) -> list[list[str]]:
    """The rows of the first table under a heading, cell by cell, without its head."""
    _, heads, below = f"\n{text_of(page)}".partition(f"\n{heading}\n")
    assert heads, f"{name_of(page)} has no heading {heading!r}"
    lines = below.split("\n")
    start = next(at for at, line in enumerate(lines) if line.startswith("|"))
    end = next((at for at in range(start, len(lines)) if not lines[at].startswith("|")), len(lines))
    return [[cell.strip() for cell in line.strip("|").split(" | ")] for line in lines[start + 2 : end]]


def names_under(page: Path, heading: str) -> list[str]:
    """The names in backticks in the first column of that table."""
    return [name for row in table_under(page, heading) for name in re.findall(r"`([^`]+)`", row[0])]


@cache
def validator(kind: str) -> Draft202012Validator:
    """Of `alert` or `score`, by the published JSON Schema."""
    return Draft202012Validator(json.loads((ROOT / "deploy" / f"{kind}.schema.json").read_text(encoding="utf-8")))
