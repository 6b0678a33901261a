"""The kinds of fields, a file each. What a kind has to answer stands in worker.features.kinds.base."""

from worker.features.kinds.base import Field
from worker.features.kinds.boolean import Boolean
from worker.features.kinds.categorical import Categorical
from worker.features.kinds.id import Id
from worker.features.kinds.ignore import Ignore
from worker.features.kinds.numeric import Numeric
from worker.features.kinds.text import Text
from worker.features.kinds.timestamp import Timestamp
from worker.registry import Registry

__all__ = ["KINDS", "Boolean", "Categorical", "Field", "Id", "Ignore", "Numeric", "Text", "Timestamp"]

KINDS: Registry[type[Field]] = Registry("field kind")
"""By the name in the schema file."""

for _kind in (Numeric, Categorical, Boolean, Timestamp, Text, Id, Ignore):
    KINDS.register(_kind.kind, _kind)
