"""Whatever stands in current.json, nothing outside of the store is read or removed, and the operator gets one line."""

from collections.abc import Callable
from pathlib import Path
from typing import Any

import orjson
import pytest

from devtools import traffic
from worker.errors import Hint, StoreError
from worker.model.store.bundle import with_report
from worker.model.store.model_store import ModelStore
from worker.model.store.pointer import POINTER, Mark, Pointer, Status, _digest

FIRST, SECOND = traffic.bundle(), with_report(traffic.bundle(), n=2)
ODD = "0123456789ab"
OLD = 1_000_000_000.0
MARK = {"status": "held", "at": traffic.CREATED, "by": "trainer", "why": "", "figures": {}}


@pytest.fixture
def store(tmp_path: Path) -> ModelStore:
    """SECOND is current; in the folder lie things that are none of the store's, and beside it `outside`."""
    store = ModelStore(tmp_path / "models", clock=lambda: OLD)
    for bundle in (FIRST, SECOND):
        store.save(bundle)
        store.promote(bundle.version)
    for folder in (tmp_path / "outside", tmp_path / "models" / "images"):
        folder.mkdir()
        (folder / "precious").write_text("x")
    return store


def document(**changes: Any) -> bytes:
    """A pointer whose checksum is right."""
    values = {**orjson.loads(Pointer(SECOND.version, (FIRST.version,), serial=2).to_bytes()), **changes}
    del values["sha256"]
    return orjson.dumps({**values, "sha256": _digest(values)})


def everything(tmp_path: Path) -> set[str]:
    return {
        str(path.relative_to(tmp_path)) for path in tmp_path.rglob("*") if path.name not in {POINTER, "current.lock"}
    }


NAMES = [
    *(
        "../outside",
        "..",
        ".",
        "",
        "/",
        "outside/../../outside",
        "a/b",
        "-rf",
        ".hidden",
        "~",
        "\x00",
        "\x1b[2J",
        "a\nb",
    ),
    *("x" * 101, "x" * 1_000_000, POINTER, f"{ODD}/", f" {ODD}", "Ω", "\\", "*", "%2e%2e%2foutside"),
]


@pytest.mark.parametrize("name", NAMES, ids=lambda name: repr(name[:30]))
def test_a_name_that_is_no_versions_is_refused_wherever_it_stands(store: ModelStore, tmp_path: Path, name: str) -> None:
    before = everything(tmp_path)
    cases: list[dict[str, Any]] = [
        {"version": name},
        {"history": [name]},
        {"removing": [name]},
        {"marks": {name: MARK}},
    ]
    for changes in cases:
        (tmp_path / "models" / POINTER).write_bytes(document(**changes))
        for action in (store.current, store.versions, lambda: store.prune(1), store.rollback, store.load):
            with pytest.raises(StoreError, match=r"current.json: broken") as error:
                action()
            assert len(str(error.value)) < 500
            assert error.value.hint is Hint.PROMOTE_A_VERSION
    assert everything(tmp_path) == before

    store.promote(FIRST.version)
    assert store.current() == FIRST.version


def linked(root: Path) -> None:
    (root / ODD).mkdir()
    (root / ODD / "link").symlink_to(root.parent / "outside")


REMOVED: dict[str, tuple[Callable[[Path], object], bool]] = {
    "a folder of something else": (lambda root: root / "images", False),
    "a link to a folder outside": (lambda root: (root / ODD).symlink_to(root.parent / "outside"), False),
    "a link to another version": (lambda root: (root / ODD).symlink_to(FIRST.version), False),
    "a link to itself": (lambda root: (root / ODD).symlink_to(ODD), False),
    "a file": (lambda root: (root / ODD).write_text("x"), False),
    "nothing": (lambda root: root, False),
    "a folder": (lambda root: (root / ODD).mkdir(), True),
    "a folder with a link to a folder outside": (linked, True),
}


@pytest.mark.parametrize("what", REMOVED)
def test_of_what_is_listed_for_removal_only_the_stores_own_folders_go(
    store: ModelStore, tmp_path: Path, what: str
) -> None:
    make, goes = REMOVED[what]
    make(tmp_path / "models")
    before = everything(tmp_path)
    (tmp_path / "models" / POINTER).write_bytes(document(removing=[ODD, "images"]))

    store.prune(10)
    after = everything(tmp_path)
    store.prune(10)

    assert after == everything(tmp_path) == {path for path in before if not goes or f"models/{ODD}" not in path}
    assert store._pointer().removing == ()
    assert (tmp_path / "outside" / "precious").read_text() == "x"


def test_links_among_what_crashes_left_behind_are_unlinked_and_not_followed(store: ModelStore, tmp_path: Path) -> None:
    link = tmp_path / "models" / f".{ODD}.{'0' * 32}"
    link.symlink_to(tmp_path / "outside")

    store._volume.sweep(-1e9)

    assert not link.is_symlink()
    assert (tmp_path / "outside" / "precious").read_text() == "x"


def test_an_old_version_that_can_not_be_removed_does_not_keep_the_others(
    store: ModelStore, monkeypatch: pytest.MonkeyPatch
) -> None:
    (Path(store.name) / POINTER).write_bytes(document(removing=[ODD, "0123456789ac"]))
    for name in (ODD, "0123456789ac"):
        (Path(store.name) / name).mkdir()
    rename = Path.rename

    def refused(path: Path, to: Path) -> Path:
        if path.name == ODD:
            raise PermissionError(13, "Permission denied")
        return rename(path, to)

    with monkeypatch.context() as patched:  # root, as whom tests may run, is refused nothing
        patched.setattr(Path, "rename", refused)
        assert store.prune(10) == ["0123456789ac"]
    assert store._pointer().removing == (ODD,)
    assert store.prune(10) == [ODD]


WRONG: list[Any] = [None, True, -1, 1.5, 2**60, "", "x", [], {}, [[]], {"x": 1}, [None], "x" * 1_000_000]


@pytest.mark.parametrize("key", [*Pointer.__slots__, "more", *(f"mark.{name}" for name in Mark.__slots__), "mark.more"])
def test_a_pointer_with_anything_anywhere_is_broken_or_means_what_it_says(
    store: ModelStore, tmp_path: Path, key: str
) -> None:
    for value in WRONG:
        changes: dict[str, Any] = {key: value}
        if key.startswith("mark."):
            changes = {"marks": {FIRST.version: {**MARK, key.removeprefix("mark."): value}}}
        (tmp_path / "models" / POINTER).write_bytes(document(**changes))
        try:
            pointer = store._pointer()
        except StoreError as error:
            message = str(error)
        else:
            message = ""
            assert orjson.loads(pointer.to_bytes()) == orjson.loads(document(**changes))
            store.versions()
            store.prune(10)
            store.marks()
        assert len(message) < 500


BOMBS = {
    "a hundred megabytes": b'"' + b"x" * 100_000_000 + b'"',
    "nested a thousand times": b"[" * 1_000 + b"]" * 1_000,
    "nested a million times": b'{"a":' * 1_000_000,
    "ten million lists": b"[" + b"[]," * 5_000_000 + b"[]]",
    "a lone surrogate": b'{"version": "\\ud800", "sha256": "x"}',
    "a number beyond 64 bits": b'{"serial": 1' + b"0" * 400 + b', "sha256": "x"}',
    "zeros": bytes(1_000),
    "nothing": b"",
    "an HTML page": b"<html>" * 1_000,
}


@pytest.mark.parametrize("what", BOMBS)
def test_a_bomb_is_refused_in_a_short_line_and_replaced_by_the_next_promotion(
    store: ModelStore, tmp_path: Path, what: str
) -> None:
    (tmp_path / "models" / POINTER).write_bytes(BOMBS[what])

    with pytest.raises(StoreError, match="broken") as error:
        store.current()
    assert len(str(error.value)) < 500

    store.promote(FIRST.version)
    assert store.current() == FIRST.version


def test_a_pointer_that_nobody_could_read_is_not_written(store: ModelStore) -> None:
    before = (Path(store.name) / POINTER).read_bytes()

    for version, why in (("../outside", ""), (FIRST.version, "x" * (17 << 20))):
        with pytest.raises(StoreError):
            store.mark(version, Mark(Status.REJECTED, traffic.CREATED, "trainer", why))

    assert (Path(store.name) / POINTER).read_bytes() == before
