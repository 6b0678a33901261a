"""Which files are meant: names as they stand, patterns, and folders."""

import re
from collections.abc import Callable, Iterable, Iterator, Sequence
from glob import iglob
from itertools import islice
from pathlib import Path
from typing import Final

from worker.errors import DataError
from worker.sources.files import FORMATS, name_suffix
from worker.sources.lines import STDIN, nearest_file

MAX_FILES: Final = 100_000
_PATTERN = re.compile(r"[*?\[]")
_DIGITS = re.compile(r"(\d+)")


def selected_files(paths: Sequence[str], file_format: str | None = None) -> list[str]:
    """The files of names, patterns (`**` reaches into folders) and folders, in the order given; those of one pattern or
    folder in the order of their names, with numbers in them by their value.

    A folder stands for the files in it and below whose names tell a format; hidden ones, and those of a writer's own
    (`_SUCCESS`), are left out.

    file_format   of all of them: then a folder's files may have any name

    Raises DataError where a pattern or folder holds none or more than 100,000.
    """
    files: list[str] = []
    for path in paths:
        if path == STDIN:
            files.append(path)
        elif _is(Path.is_dir, path):
            files += _in_order(path, _of_folder(path, file_format), "no file whose name ends in one of " + _endings())
        elif _PATTERN.search(path) and not _is(Path.exists, path):
            names = (name for name in iglob(path, recursive=True) if not Path(name).is_dir())  # noqa: PTH207  # absolute too
            files += _in_order(path, names, f"no file fits this pattern{nearest_file(path)}")
        else:
            files.append(path)
    return files


def _is(what: Callable[[Path], bool], path: str) -> bool:
    try:
        return what(Path(path))
    except (OSError, ValueError):  # whoever reads it says why it can't be
        return False


def _in_order(path: str, names: Iterable[str], nothing: str) -> list[str]:
    matches = list(islice(names, MAX_FILES + 1))
    if not matches:
        raise DataError(f"{path}: {nothing}")
    if len(matches) > MAX_FILES:
        raise DataError(f"{path}: more than {MAX_FILES:,} files: name a part of them")
    return sorted(matches, key=_by_number)


def _by_number(name: str) -> list[tuple[int, int, str]]:
    """`part-2` comes before `part-10`."""
    parts = _DIGITS.split(name)
    return [(0, int(part), part) if part.isdecimal() else (1, 0, part) for part in parts]


def _of_folder(folder: str, file_format: str | None) -> Iterator[str]:
    for path in Path(folder).rglob("*"):
        is_hidden = any(part.startswith((".", "_")) for part in path.relative_to(folder).parts)
        if not is_hidden and (file_format is not None or name_suffix(path.name) in _suffixes()) and path.is_file():
            yield str(path)


def _suffixes() -> list[str]:
    return [suffix for name in FORMATS for suffix in FORMATS[name].suffixes]


def _endings() -> str:
    return ", ".join(f".{suffix}" for suffix in _suffixes()) + " (.gz and .zst too); name the files, or their format"
