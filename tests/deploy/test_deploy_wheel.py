"""The wheel holds what is no Python: the report's templates and the demo's schema."""

import shutil
import subprocess
import tomllib
from importlib.resources import files
from pathlib import Path

import pytest
from jinja2 import Environment, meta

ROOT = Path(__file__).parents[2]
PAGE = files("worker.replay") / "page"


def test_the_page_and_what_it_includes_are_package_data_and_nothing_else_is() -> None:
    pending, reached = ["report.html"], set()
    while pending:
        name = pending.pop()
        reached.add(name)
        included = meta.find_referenced_templates(Environment(autoescape=True).parse((PAGE / name).read_text("utf-8")))
        pending += [str(other) for other in included if other not in reached]

    assert reached == {file.name for file in PAGE.iterdir()}


@pytest.mark.skipif(shutil.which("git") is None or not (ROOT / ".git").exists(), reason="needs the repository")
def test_the_wheel_takes_every_file_of_the_package() -> None:
    wheel = tomllib.loads((ROOT / "pyproject.toml").read_text())["tool"]["hatch"]["build"]["targets"]["wheel"]
    data = [str(path) for path in (ROOT / "worker").rglob("*.*") if path.suffix not in {".py", ".pyc"}]
    ignored = subprocess.run(["git", "check-ignore", *data], cwd=ROOT, capture_output=True, text=True, check=False)

    assert wheel == {"packages": ["worker"]}  # hatch leaves out what git ignores, and no more than that
    assert len(data) > 8
    assert not ignored.stdout
