"""The sample for `make replay`."""

from pathlib import Path

import orjson

from worker.demo.sample import LABEL, write_sample


def test_the_sample_is_labelled_and_the_same_every_time(tmp_path: Path) -> None:
    one, other = tmp_path / "one.jsonl", tmp_path / "deeper" / "other.jsonl"

    write_sample(one, records=3000)
    write_sample(other, records=3000)

    labels = [orjson.loads(line)[LABEL] for line in one.read_bytes().splitlines()]
    assert one.read_bytes() == other.read_bytes()
    assert len(labels) == 3000
    assert 0.9 < labels.count("normal") / len(labels) < 1
