"""One error tree, sorted by what the record loop does next.

RecordError      this record becomes a dead letter, its neighbours go on
TransientError   commit nothing, wait, build the client anew, read the batch again
RecordTooLarge   shorten the record, and send it again
UsageError       wrong command line: exit 2
FatalError       stop with one clear line: exit 1; of those, StoreUnavailable is tried again by a process that runs, and
                 BreakerTripped is exit 3, offsets kept
"""

from collections.abc import Sequence
from enum import StrEnum
from typing import Any


class ErrorCode(StrEnum):
    """Why a record became a dead letter: the closed list of `error.code`."""

    INVALID_JSON = "invalid_json"
    NOT_AN_OBJECT = "not_an_object"
    MISSING_FIELD = "missing_field"
    WRONG_TYPE = "wrong_type"
    NOT_FINITE = "not_finite"
    BAD_TIMESTAMP = "bad_timestamp"
    TOO_LARGE = "too_large"
    UNREADABLE = "unreadable"
    INVALID_RECORD = "invalid_record"
    UNKNOWN_SCHEMA = "unknown_schema"


class Hint(StrEnum):
    """What a person can do about an error. The command line has the words, for only it knows its commands."""

    FIT_A_MODEL = "fit_a_model"
    FIT_FOR_THIS_SCHEMA = "fit_for_this_schema"
    PROMOTE_A_VERSION = "promote_a_version"
    FORCE_THE_PROMOTION = "force_the_promotion"
    PROPOSE_A_SCHEMA = "propose_a_schema"
    INSTALL_REPLAY = "install_replay"
    INSTALL_STORE = "install_store"
    INSTALL_COMPRESSION = "install_compression"
    INSTALL_REGISTRY = "install_registry"
    INSTALL_DEMO = "install_demo"
    ADOPT_OR_VETO_NOW = "adopt_or_veto_now"
    ADOPT_OR_VETO_ONCE_HELD = "adopt_or_veto_once_held"


class WorkerError(Exception):
    """The root: everything that the worker raises on purpose.

    message   what is wrong, for people; a setting stands in it by its path in brackets, such as [model.hidden]
    hint      what can be done about it, where the message alone does not say
    """

    exit_code = 1

    def __init__(self, message: str = "", *, hint: Hint | None = None) -> None:
        super().__init__(message)
        self.hint = hint


class RecordError(WorkerError):
    """One record that can't be scored; `error_code` and `detail` go into its dead letter's headers."""

    def __init__(self, error_code: ErrorCode, detail: str) -> None:
        super().__init__(f"{error_code}: {detail}")
        self.error_code = error_code
        self.detail = detail


class TransientError(WorkerError):
    """Nothing was committed; waiting and starting over from the committed offset loses nothing."""


class BrokerUnavailable(TransientError):
    """The broker did not answer in time."""


class OutcomeUnknown(BrokerUnavailable):
    """The broker is there, but how the last transaction ended is not known yet: to be asked again soon."""


class MissingTopic(TransientError):
    """A topic does not exist on the broker; somebody may create it yet."""


class RegistryUnavailable(TransientError):
    """The schema registry did not answer; records whose schema is not known yet can't be read until it does."""


class DeliveryError(TransientError):
    """A record that was sent was not acknowledged. The producer that sent it must not be used again."""


class CommitRefused(TransientError):
    """The group has a new generation: these partitions may belong to another member now."""


class RecordTooLarge(WorkerError):
    """Records are larger than the client or the broker accepts; `records` are the very objects that were sent."""

    def __init__(self, message: str = "", records: Sequence[Any] = ()) -> None:
        super().__init__(message)
        self.records = tuple(records)


class UsageError(WorkerError):
    """The command line is wrong."""

    exit_code = 2


class FatalError(WorkerError):
    """Going on would be wrong or useless; an operator has to act."""


class SettingsError(FatalError):
    """A setting is missing, unknown or out of range."""


class SchemaError(FatalError):
    """A schema file is broken or says something impossible."""


class DataError(FatalError):
    """A file or topic that can't be read, or holds too little to learn from."""


class BundleError(FatalError):
    """A model version that is broken, foreign or made for another schema."""


class StoreError(FatalError):
    """The model store can't be read or written."""


class StoreUnavailable(StoreError):
    """The model store can't be reached, or has no room, for now. Only a command ends with it."""


class StoreConflict(StoreError):
    """Another process changed the model store in between. Nothing was written."""


class OffsetOutOfRange(FatalError):
    """The committed offset is no longer in the log."""


class Fenced(FatalError):
    """Another process uses the same transactional id and has taken over."""


class Displaced(Fenced):
    """The broker says that another member of the group has this one's instance id."""


class BreakerTripped(FatalError):
    """Too many invalid records; the offsets before them are kept."""

    exit_code = 3
