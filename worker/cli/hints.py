"""Errors in the words of the command line: settings as variables, hints as commands.

The rooms below know neither: they name a setting by its path in brackets, and attach a hint.
"""

import re
from collections.abc import Mapping
from typing import Final

from worker.errors import Hint, WorkerError

# On no index is a package of this name. The quotes are for zsh, to which brackets are a pattern.
_INSTALL = "in the worker's checkout, install it with: python -m pip install"

HINTS: Final[Mapping[Hint, str]] = {
    Hint.FIT_A_MODEL: "fit one with: worker train --once --from FILE",
    Hint.FIT_FOR_THIS_SCHEMA: "use the schema that it knows, or fit a model for this one with: worker train --once",
    Hint.PROMOTE_A_VERSION: "name a version again with: worker models promote VERSION",
    Hint.FORCE_THE_PROMOTION: "to take it all the same: worker models promote VERSION --force",
    Hint.PROPOSE_A_SCHEMA: "propose one with: worker infer-schema FILE > schema.toml",
    Hint.INSTALL_REPLAY: f"{_INSTALL} '.[replay]'",
    Hint.INSTALL_STORE: f"{_INSTALL} '.[store]'",
    Hint.INSTALL_COMPRESSION: f"{_INSTALL} '.[compression]'",
    Hint.INSTALL_REGISTRY: f"{_INSTALL} '.[registry]'",
    Hint.INSTALL_DEMO: f"{_INSTALL} '.[demo]'",
    Hint.ADOPT_OR_VETO_NOW: "decide at once with: worker models adopt (or: worker models veto), "
    "else it becomes the new normal",
    Hint.ADOPT_OR_VETO_ONCE_HELD: "once a candidate is held, decide with: worker models adopt (or: worker models veto)",
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
