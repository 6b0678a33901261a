"""The kinds of fields. What a kind has to answer stands in worker.features.kinds.base."""

from worker.features.kinds.address import Address
from worker.features.kinds.base import Field
from worker.features.kinds.forms import Agent, Command, Domain, Url
from worker.features.kinds.nominal import Boolean, Categorical, Id, Ignore
from worker.features.kinds.numbers import Numbers
from worker.features.kinds.numeric import Numeric
from worker.features.kinds.sets import SetOfNames
from worker.features.kinds.text import Text
from worker.features.kinds.timestamp import Timestamp
from worker.registry import Registry

__all__ = [
    "KINDS",
    "Address",
    "Agent",
    "Boolean",
    "Categorical",
    "Command",
    "Domain",
    "Field",
    "Id",
    "Ignore",
    "Numbers",
    "Numeric",
    "SetOfNames",
    "Text",
    "Timestamp",
    "Url",
]

KINDS: Registry[type[Field]] = Registry("field kind")
"""By the name in the schema file. Where equally much speaks for two kinds of a field, the first one here has it."""

for _kind in (
    Numeric,
    Categorical,
    Boolean,
    Timestamp,
    Address,
    Url,
    Agent,
    Domain,
    Command,
    Text,
    SetOfNames,
    Numbers,
    Id,
    Ignore,
):
    KINDS.register(_kind.kind, _kind)
