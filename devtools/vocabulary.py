"""`python -m devtools.vocabulary [FOLDER…]`: identifiers with a word that docs/glossary.md has ruled out.

The table between the glossary's two markers is the list: words to avoid, what to say instead, and where they may
stand. Identifiers are compared by their parts, so that `held_back` and `HeldBack` are the same. Exit code 1 if any.
"""

import argparse
import ast
import re
import sys
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

GLOSSARY = Path("docs/glossary.md")
FOLDERS = ("worker", "devtools", "tests", "benchmarks")

Parts = tuple[str, ...]


@dataclass(frozen=True)
class Rule:
    """One row of the table.

    words         each as its parts: ("in", "force")
    instead       what to say, for the message
    identifiers   parts of identifiers in which the words may stand: ("at", "least", "once")
    paths         files and folders in which they may stand
    """

    words: tuple[Parts, ...]
    instead: str
    identifiers: tuple[Parts, ...]
    paths: tuple[str, ...]


def read_rules(text: str) -> list[Rule]:
    """The rows of the glossary's table; ValueError where its markers are missing."""
    between = re.search(r"<!-- not-these:begin -->(.*)<!-- not-these:end -->", text, re.DOTALL)
    if between is None:
        raise ValueError(f"{GLOSSARY} has no markers not-these:begin and not-these:end")
    rows = [line for line in between[1].splitlines() if line.startswith("|")][2:]
    return [_rule(*(cell.strip() for cell in row.strip("|").split("|"))) for row in rows]


def _rule(words: str, instead: str, may_stand: str) -> Rule:
    places = [place.strip(" `") for place in may_stand.split(",") if place.strip()]
    return Rule(
        words=tuple(parts_of(word.strip(" `")) for word in words.split(",")),
        instead=instead,
        identifiers=tuple(parts_of(place) for place in places if "/" not in place),
        paths=tuple(place for place in places if "/" in place),
    )


def parts_of(identifier: str) -> Parts:
    """The words of a snake_case or CamelCase identifier, in small letters."""
    spaced = re.sub(r"(?<=[a-z0-9])(?=[A-Z])|(?<=[A-Z])(?=[A-Z][a-z])", "_", identifier)
    return tuple(part for part in re.split(r"[^a-z0-9]+", spaced.lower()) if part)


def identifiers_of(source: str) -> Iterator[tuple[int, str]]:
    """Every identifier of a file with its line, also those in f-strings.

    Names of tests are sentences, and names that another package chose (`from hypothesis import given`) are not ours.
    """
    tree = ast.parse(source)
    foreign = set(_foreign_names(tree))
    for node in ast.walk(tree):
        line = getattr(node, "lineno", 1)
        for field, value in ast.iter_fields(node):
            names = value if isinstance(value, list) else [value]
            if isinstance(node, ast.Constant) or (isinstance(node, ast.ImportFrom | ast.alias) and field != "asname"):
                continue
            for name in names:
                if isinstance(name, str) and name not in foreign and not name.startswith("test_"):
                    yield line, name


def _foreign_names(tree: ast.AST) -> Iterator[str]:
    for node in ast.walk(tree):
        if isinstance(node, ast.ImportFrom) and (node.module or "").partition(".")[0] not in FOLDERS:
            yield from (alias.asname or alias.name for alias in node.names)


def complaint(rules: list[Rule], path: str, identifier: str) -> str | None:
    """What is wrong with an identifier in this file; None where nothing is."""
    parts = parts_of(identifier)
    for rule in rules:
        if path.startswith(rule.paths):
            continue
        rest = parts
        for allowed in rule.identifiers:
            rest = _without(rest, allowed)
        for word in rule.words:
            if _position(rest, word) is not None:
                return f"{identifier}: not {' '.join(word)!r} but {rule.instead}"
    return None


def _position(parts: Parts, word: Parts) -> int | None:
    places = range(len(parts) - len(word) + 1)
    return next((place for place in places if parts[place : place + len(word)] == word), None)


def _without(parts: Parts, allowed: Parts) -> Parts:
    """The parts with every run of the allowed ones replaced by one that is no word."""
    while (place := _position(parts, allowed)) is not None:
        parts = (*parts[:place], "", *parts[place + len(allowed) :])
    return parts


def check(folders: list[str]) -> list[str]:
    """One line for each identifier of each file that the glossary rules out."""
    rules = read_rules(GLOSSARY.read_text(encoding="utf-8"))
    complaints = []
    for path in sorted(path for folder in folders for path in _files(Path(folder))):
        name = path.as_posix()
        seen: dict[str, int] = {}
        for line, identifier in identifiers_of(path.read_text(encoding="utf-8")):
            seen.setdefault(identifier, line)
        said = [(line, complaint(rules, name, identifier)) for identifier, line in seen.items()]
        complaints += [f"{name}:{line}: {text}" for line, text in sorted(said, key=lambda item: item[0]) if text]
    return complaints


def _files(path: Path) -> list[Path]:
    return [path] if path.is_file() else list(path.rglob("*.py"))


def main() -> int:
    """Checks everything, or the folders and files that are named."""
    parser = argparse.ArgumentParser(prog="python -m devtools.vocabulary", description=__doc__)
    parser.add_argument("folders", metavar="FOLDER", nargs="*", help=f"default: {', '.join(FOLDERS)}")
    folders: list[str] = parser.parse_args().folders
    complaints = check(folders or list(FOLDERS))
    for line in complaints:
        print(line)
    print(f"vocabulary: {len(complaints)} identifiers to rename" if complaints else "vocabulary: in order")
    return 1 if complaints else 0


if __name__ == "__main__":
    sys.exit(main())
