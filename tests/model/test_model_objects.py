"""What an object store can do wrong, and how it is said."""

import sys

import pytest

from devtools import traffic
from devtools.objects import ObjectServer
from devtools.store_files import files, put
from worker.errors import Hint, StoreError, StoreUnavailable
from worker.model.store.model_store import ModelStore
from worker.model.store.objects import ObjectVolume


def test_without_the_extra_the_hint_is_to_install_it(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, "s3fs", None)

    with pytest.raises(StoreError, match="needs s3fs") as error:
        ModelStore("s3://bucket/models")
    assert error.value.hint is Hint.INSTALL_STORE


@pytest.mark.parametrize("url", ["gs://bucket/models", "s3://", "memory://models", "https://example.com/models"])
def test_a_url_of_another_kind_is_refused(url: str) -> None:
    with pytest.raises(StoreError, match="must be a directory or s3://BUCKET/PREFIX"):
        ModelStore(url)


def test_a_bucket_that_does_not_exist_is_not_taken_for_an_empty_store(object_server: ObjectServer) -> None:
    store = ModelStore("s3://nowhere/models", options=object_server.options)

    for action in (store.current, store.versions, store.require_writable, lambda: store.save(traffic.bundle())):
        with pytest.raises(StoreError, match="no such bucket") as error:
            action()
        assert not isinstance(error.value, StoreUnavailable)


def test_nobody_listening_is_an_outage_and_missing_keys_are_not(monkeypatch: pytest.MonkeyPatch) -> None:
    for name in ("AWS_ACCESS_KEY_ID", "AWS_SECRET_ACCESS_KEY", "AWS_PROFILE"):
        monkeypatch.delenv(name, raising=False)
    monkeypatch.setenv("AWS_EC2_METADATA_DISABLED", "true")
    closed = {"endpoint_url": "http://127.0.0.1:1"}

    with pytest.raises(StoreUnavailable, match="Could not connect"):
        ModelStore("s3://bucket/models", options={**closed, "key": "a", "secret": "b"}).current()
    with pytest.raises(StoreError, match="credentials") as error:
        ModelStore("s3://bucket/models", options=closed).current()
    assert not isinstance(error.value, StoreUnavailable)


def test_a_server_that_ignores_conditions_is_found_before_it_matters(
    object_server: ObjectServer, monkeypatch: pytest.MonkeyPatch
) -> None:
    store = object_server.store()
    store.require_writable()
    assert files(store) == {}

    def put_always(self: ObjectVolume, path: str, content: bytes, tag: str | None) -> None:
        self._fs.pipe_file(self._at(path), content)

    monkeypatch.setattr(ObjectVolume, "_put", put_always)
    with pytest.raises(StoreError, match="no notice of conditional writes"):
        store.require_writable()
    assert files(store) == {}


def test_a_write_whose_answer_got_lost_is_no_conflict(
    object_server: ObjectServer, monkeypatch: pytest.MonkeyPatch
) -> None:
    store = object_server.store()
    store.save(traffic.bundle())
    put_once = ObjectVolume._put

    def repeated(self: ObjectVolume, path: str, content: bytes, tag: str | None) -> None:
        put_once(self, path, content, tag)
        put_once(self, path, content, tag)

    monkeypatch.setattr(ObjectVolume, "_put", repeated)
    store.promote(traffic.bundle().version, expected=None)

    assert store._pointer().serial == 1


def test_of_what_crashes_left_behind_only_the_stores_own_files_are_swept(object_server: ObjectServer) -> None:
    store = object_server.store()
    store.save(traffic.bundle())
    whole = files(store)
    foreign = {"0123456789ab/notes.txt": b"x", "images/weights.safetensors": b"x"}
    left = {"0123456789ac/weights.safetensors": b"x", ".probe.1": b"x"}
    for path, content in {**foreign, **left}.items():
        put(store, path, content)
    volume = store._volume
    assert isinstance(volume, ObjectVolume)

    volume.sweep(3600.0)
    assert files(store) == {**whole, **foreign, **left}
    volume.sweep(-3600.0)
    assert files(store) == {**whole, **foreign}
