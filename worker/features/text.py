"""Free text to its template: what is left when the parts that always differ are masked."""

import re

MAX_TEMPLATE = 512  # characters; a vocabulary of templates must stay small

_VARIABLE = re.compile(
    r"""(?P<uuid>\b[0-9a-fA-F]{8}-(?:[0-9a-fA-F]{4}-){3}[0-9a-fA-F]{12}\b)
      | (?P<ip>\b[0-9]{1,3}(?:\.[0-9]{1,3}){3}\b | \b(?:[0-9a-fA-F]{1,4}:){7}[0-9a-fA-F]{1,4}\b)
      | (?P<hex>\b0[xX][0-9a-fA-F]+\b | \b(?=[0-9]*[a-fA-F])(?=[a-fA-F]*[0-9])[0-9a-fA-F]{8,}\b)
      | (?P<num>[0-9]+)""",
    re.VERBOSE,
)


def template(text: str) -> str:
    """`text` with UUIDs, IP addresses, hexadecimal words and digits masked, at most 512 characters.

    "login of 4711 from 10.0.0.7" becomes "login of <num> from <ip>".
    """
    return _VARIABLE.sub(_mask, text)[:MAX_TEMPLATE]


def _mask(match: re.Match[str]) -> str:
    return f"<{match.lastgroup}>"
