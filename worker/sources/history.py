"""What of history was read: kept with a model that was fitted on it, and asked when records are replayed."""

import hashlib
import os
import stat
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

from worker.plain import read_plain

SAMPLES, SAMPLE_BYTES = 64, 64 * 1024


@dataclass(frozen=True, slots=True)
class OffsetRange:
    """Records of one partition, from `first` to `last`, both of them too."""

    topic: str
    partition: int
    first: int
    last: int


@dataclass(frozen=True, slots=True)
class History:
    """The parts of a source.

    files     fingerprints of the files
    offsets   ranges of the partitions
    """

    files: tuple[str, ...] = ()
    offsets: tuple[OffsetRange, ...] = ()

    def to_json(self) -> dict[str, Any]:
        """Plain data."""
        return asdict(self)

    @classmethod
    def from_json(cls, data: Any) -> "History":
        """The inverse of `to_json`; an empty one where the data is none, as that of a model from elsewhere."""
        try:
            return read_plain(cls, data)
        except (ValueError, TypeError):
            return cls()


def fingerprint(path: str) -> str | None:
    """A hash of a file's size and of up to 4 MiB that are spread over it; None of a pipe, or where it can't be read.

    Two files with one fingerprint hold the same, unless somebody made them to differ elsewhere. The same records packed
    another way have another one.
    """
    try:
        status = Path(path).stat()
        if not stat.S_ISREG(status.st_mode):
            return None
        digest = hashlib.sha256(str(status.st_size).encode())
        last = max(0, status.st_size - SAMPLE_BYTES)
        with Path(path).open("rb") as file:
            for start in sorted({last * number // (SAMPLES - 1) for number in range(SAMPLES)}):
                digest.update(os.pread(file.fileno(), SAMPLE_BYTES, start))
    except OSError:
        return None
    return digest.hexdigest()[:32]
