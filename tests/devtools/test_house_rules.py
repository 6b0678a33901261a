"""The checks of `make check` that are written here refuse what they are there for."""

import ast

import pytest

from devtools.boundaries import circles, forbidden, imports_of, messages
from devtools.vocabulary import complaint, identifiers_of, parts_of, read_rules

GLOSSARY = """
<!-- not-these:begin -->
| not this | say | may stand in |
|---|---|---|
| most, in_force | max, current | `at_least_once`, `most_common`, worker/old/ |
<!-- not-these:end -->
"""


@pytest.mark.parametrize("identifier", ["most", "MOST_BYTES", "bytesMost", "ModelInForce", "model_in_force"])
def test_a_word_of_the_table_is_refused_however_an_identifier_is_written(identifier: str) -> None:
    assert complaint(read_rules(GLOSSARY), "worker/new.py", identifier) is not None


@pytest.mark.parametrize("identifier", ["almost", "utmost", "most_common", "in_any_force", "inform"])
def test_other_words_and_the_exceptions_of_the_table_may_stand(identifier: str) -> None:
    assert complaint(read_rules(GLOSSARY), "worker/new.py", identifier) is None
    assert complaint(read_rules(GLOSSARY), "worker/old/file.py", "most") is None


def test_identifiers_are_those_that_a_file_chooses_itself() -> None:
    source = 'from other import most\ndef test_most_of_it(least=most):\n    """given"""\n    print(f"{few} found")\n'

    assert {name for _, name in identifiers_of(source)} == {"least", "print", "few"}
    assert parts_of("HTTPServer_maxBytes") == ("http", "server", "max", "bytes")


@pytest.mark.parametrize("text", ["WORKER_SEED is wrong", "fit one with worker train --once"])
def test_below_the_command_line_a_message_names_no_variable_and_no_command(text: str) -> None:
    tree = ast.parse(f'"""Of worker run and WORKER_SEED."""\nraise Error(f"{{x}}: {text}")\n')

    assert len(list(messages("worker/model/store.py", tree))) == 1
    assert not list(messages("worker/cli/run.py", tree))


def test_imports_in_a_circle_are_reported_once_however_late_they_are() -> None:
    modules = frozenset({"worker.a", "worker.b", "worker.c"})
    sources = {
        "worker.a": "from worker import b",
        "worker.b": "def f():\n    import worker.a",
        "worker.c": "import worker.b",
    }
    graph = {name: imports_of(ast.parse(text), modules) for name, text in sources.items()}

    assert list(circles(graph)) == [["worker.a", "worker.b"]]


def test_tests_and_benchmarks_do_not_import_each_other_and_nothing_imports_a_test() -> None:
    graph = {"benchmarks.x": {"tests.common": 1}, "tests.y": {"tests.test_z": 2}, "devtools.z": {"worker.errors": 3}}

    assert list(forbidden(graph)) == [
        "benchmarks/x.py:1: benchmarks does not import tests.common",
        "tests/y.py:2: tests.test_z is a test file",
    ]
