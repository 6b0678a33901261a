"""Files of a store behind its back, whatever kind of store it is."""

from worker.model.store.model_store import ModelStore
from worker.model.store.objects import ObjectVolume
from worker.model.store.volume import LocalVolume

MAX_BYTES = 1 << 30


def put(store: ModelStore, path: str, content: bytes) -> None:
    """Replace a file."""
    volume = store._volume
    if isinstance(volume, LocalVolume):
        (volume.root / path).write_bytes(content)
    else:
        assert isinstance(volume, ObjectVolume)
        volume._fs.pipe_file(volume._at(path), content)


def files(store: ModelStore) -> dict[str, bytes]:
    """Everything in the store, by its path in it."""
    volume = store._volume
    if isinstance(volume, LocalVolume):
        paths = [str(path.relative_to(volume.root)) for path in volume.root.rglob("*") if path.is_file()]
    else:
        assert isinstance(volume, ObjectVolume)
        paths = [f"{folder}/{name}".strip("/") for folder, names in volume._listed().items() for name in names]
    return {path: volume.read(path, MAX_BYTES) or b"" for path in paths}
