"""Errors in the words of the command line: settings as variables, hints as commands.

The rooms below know neither: they name a setting by its path in brackets, and attach a hint.
"""

import re
from collections.abc import Mapping
from typing import Final

from worker.errors import Hint, WorkerError

HINTS: Final[Mapping[Hint, str]] = {
    Hint.FIT_A_MODEL: "fit one with: worker train --once --from FILE",
    Hint.FIT_FOR_THIS_SCHEMA: "fit a model for it (worker train --once), or use the schema that it knows",
    Hint.PROMOTE_A_VERSION: "name a version again with: worker models promote VERSION",
    Hint.FORCE_THE_PROMOTION: "to take it all the same: worker models promote VERSION --force",
    Hint.PROPOSE_A_SCHEMA: "propose one with: worker infer-schema FILE > schema.toml",
    Hint.INSTALL_REPLAY: "pip install 'kafka-anomaly-worker[replay]'",
    Hint.INSTALL_STORE: "pip install 'kafka-anomaly-worker[store]'",
    Hint.INSTALL_COMPRESSION: "pip install 'kafka-anomaly-worker[compression]'",
    Hint.ADOPT_OR_VETO_NOW: "worker models adopt or veto decides at once, else it becomes the new normal",
    Hint.ADOPT_OR_VETO_ONCE_HELD: "worker models adopt or veto, once a candidate is held",
}

_PATH = re.compile(r"\[([a-z_]+(?:\.[a-z_]+)?)\]")


def message_of(error: Exception | str) -> str:
    """What the command line prints and the logs say of an error or a text: each `[path]` of a setting as its variable,
    and an error's hint at the end. Other brackets stay. Of a hint alone its words."""
    from worker.settings import variable_of

    if isinstance(error, Hint):
        return HINTS[error]
    text = _PATH.sub(lambda match: variable_of(match[1]) or match[0], str(error))
    hint = error.hint if isinstance(error, WorkerError) else None
    return f"{text}; {HINTS[hint]}" if hint is not None else text
