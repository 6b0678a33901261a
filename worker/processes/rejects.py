"""Records that a format could not read, and when they are so many that the format is a wrong guess."""

from dataclasses import dataclass

from worker.errors import DataError
from worker.formats.base import Decoded


@dataclass(slots=True)
class Rejects:
    """Records without fields, counted.

    count     how many
    records   of how many that were looked at
    first     why the first one has none
    """

    count: int = 0
    records: int = 0
    first: str = ""

    def add(self, decoded: Decoded) -> None:
        """Count a batch."""
        self.records += len(decoded.rows) + len(decoded.rejects)
        self.count += len(decoded.rejects)
        if decoded.rejects and not self.first:
            self.first = decoded.rejects[0].detail

    @property
    def text(self) -> str:
        """What to say of them."""
        if self.count == self.records:
            return f"none of {self.records} records has fields: {self.first}"
        return f"{self.count} of {self.records} records have no fields and were left out: {self.first}"

    def check(self, name: str) -> None:
        """DataError where more than half of the records have no fields; name: of the input."""
        if self.count * 2 > self.records:
            raise DataError(f"{name}: {self.text}")
