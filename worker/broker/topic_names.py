"""One topic, several, or all that fit a pattern, as a person names them: `orders`, `orders,payments`, `^orders\\..*`.

No topic's name has a comma or begins with a circumflex, so one text says which of the three is meant.
"""

import re
from collections.abc import Iterable

PATTERN_MARK = "^"


def is_pattern(text: str) -> bool:
    """Whether a text stands for all topics whose names fit it, those that are created later, too."""
    return text.startswith(PATTERN_MARK)


def topic_names(text: str) -> list[str]:
    """The names in a text, each once; none in a pattern.

    >>> topic_names("orders, payments,orders"), topic_names("^orders")
    (['orders', 'payments'], [])
    """
    return [] if is_pattern(text) else list(dict.fromkeys(name.strip() for name in text.split(",") if name.strip()))


def fitting_topics(text: str, existing: Iterable[str]) -> list[str]:
    """Those of the topics that are there which a text names, or whose names begin as its pattern says; sorted.

    >>> fitting_topics("^orders", ["orders.eu", "old-orders"]), fitting_topics("b,a,c", ["a", "b"])
    (['orders.eu'], ['a', 'b'])
    """
    if is_pattern(text):
        pattern = re.compile(text)  # `match`, as the client has it for a subscription: both must name the same topics
        return sorted(name for name in existing if pattern.match(name))
    return sorted(set(topic_names(text)) & set(existing))
