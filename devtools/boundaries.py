"""`python -m devtools.boundaries [FOLDER…]`: how files may depend on each other, where no linter knows it.

1. Below the command line no message names a variable (`WORKER_…`) or a command: errors write a setting as [its.path]
   and attach a Hint, and worker.cli.hints has the words for both. Docstrings may.
2. Files don't import each other in a circle, however late the import.
3. worker/ imports nothing from outside, devtools/ only worker/; tests/ and benchmarks/ not each other; nothing imports
   a test file: what two of them need is in devtools/, or in a file of their folder that is no test.

Exit code 1 if anything is otherwise.
"""

import argparse
import ast
import re
import sys
from collections.abc import Iterator, Mapping
from pathlib import Path

ROOTS = ("worker", "devtools", "tests", "benchmarks")
MAY_IMPORT = {
    "worker": {"worker"},
    "devtools": {"worker", "devtools"},
    "tests": {"worker", "devtools", "tests"},
    "benchmarks": {"worker", "devtools", "benchmarks"},
}
SPEAKS_OF_VARIABLES = ("worker/cli/", "worker/settings/", "worker/demo/")
VARIABLE_OR_COMMAND = re.compile(r"WORKER_[A-Z]\w*|\bworker (run|train|replay|infer-schema|demo|check|models)\b")

Graph = Mapping[str, Mapping[str, int]]
"""Module -> imported module -> line of the import."""


def strings_of(tree: ast.AST) -> Iterator[ast.Constant]:
    """The strings of a file that are no docstrings."""
    alone = {id(node.value) for node in ast.walk(tree) if isinstance(node, ast.Expr)}
    for node in ast.walk(tree):
        if isinstance(node, ast.Constant) and isinstance(node.value, str) and id(node) not in alone:
            yield node


def messages(path: str, tree: ast.AST) -> Iterator[str]:
    """Complaints about a file's strings."""
    if not path.startswith("worker/") or path.startswith(SPEAKS_OF_VARIABLES):
        return
    for string in strings_of(tree):
        if named := VARIABLE_OR_COMMAND.search(str(string.value)):
            yield f"{path}:{string.lineno}: names {named[0]!r}: write [the.path] of a setting, a Hint for a command"


def imports_of(tree: ast.AST, modules: frozenset[str]) -> dict[str, int]:
    """The repository's modules that a file imports, with the line."""
    imported: dict[str, int] = {}
    for node in ast.walk(tree):
        if isinstance(node, ast.Import):
            names = [alias.name for alias in node.names]
        elif isinstance(node, ast.ImportFrom) and node.module:
            names = [f"{node.module}.{alias.name}" for alias in node.names]
            names = [name if name in modules else node.module for name in names]
        else:
            continue
        imported |= {name: node.lineno for name in names if name in modules and name not in imported}
    return imported


def circles(graph: Graph) -> Iterator[list[str]]:
    """Each group of modules that import each other in a circle, found once (Tarjan's strongly connected components)."""
    index: dict[str, int] = {}
    low: dict[str, int] = {}
    stack: list[str] = []

    def visit(module: str) -> Iterator[list[str]]:
        index[module] = low[module] = len(index)
        stack.append(module)
        for below in graph[module]:
            if below not in index:
                yield from visit(below)
            if below in stack:
                low[module] = min(low[module], low[below])
        if low[module] == index[module]:
            group = stack[stack.index(module) :]
            del stack[stack.index(module) :]
            if len(group) > 1:
                yield sorted(group)

    for module in graph:
        if module not in index:
            yield from visit(module)


def forbidden(graph: Graph) -> Iterator[str]:
    """Imports against rule 3."""
    for module, imported in graph.items():
        root = module.partition(".")[0]
        for name, line in imported.items():
            place = f"{module.replace('.', '/')}.py:{line}"
            if name.partition(".")[0] not in MAY_IMPORT[root]:
                yield f"{place}: {root} does not import {name}"
            elif name.rpartition(".")[2].startswith("test_"):
                yield f"{place}: {name} is a test file"


def check(folders: list[str]) -> list[str]:
    """One line for each thing that is wrong in these folders."""
    trees = {
        path.as_posix(): ast.parse(path.read_text(encoding="utf-8"))
        for root in ROOTS
        for path in sorted(Path(root).rglob("*.py"))
    }
    names = {path: path.removesuffix(".py").removesuffix("/__init__").replace("/", ".") for path in trees}
    modules = frozenset(names.values())
    graph = {names[path]: imports_of(tree, modules) for path, tree in trees.items()}
    complaints = [line for path, tree in trees.items() for line in messages(path, tree)]
    complaints += forbidden(graph)
    complaints += [
        f"{group[0].replace('.', '/')}.py: imports in a circle: {', '.join(group)}" for group in circles(graph)
    ]
    return [line for line in complaints if line.startswith(tuple(folders))]


def main() -> int:
    """Checks everything, or the folders that are named."""
    parser = argparse.ArgumentParser(
        prog="python -m devtools.boundaries",
        description=__doc__,
        formatter_class=argparse.RawDescriptionHelpFormatter,
    )
    parser.add_argument("folders", metavar="FOLDER", nargs="*", help=f"default: {', '.join(ROOTS)}")
    folders: list[str] = parser.parse_args().folders
    complaints = check(folders or list(ROOTS))
    for line in complaints:
        print(line)
    print(f"boundaries: {len(complaints)} to mend" if complaints else "boundaries: in order")
    return 1 if complaints else 0


if __name__ == "__main__":
    sys.exit(main())
