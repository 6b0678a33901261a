"""What is usual in texts, learned from many of them, and how far a single one is from it."""

import base64
import math
import re
from collections import Counter
from collections.abc import Callable, Iterable, Iterator, Sequence
from functools import lru_cache
from ipaddress import ip_address
from itertools import islice
from typing import NamedTuple

import numpy as np
from numpy.typing import NDArray

from worker.features.kinds.masks import MAX_TEMPLATE
from worker.features.kinds.templates import TemplateTree, learn_templates
from worker.features.learned import Lexicon, SlotValues

MAX_TEMPLATES = 4096
MAX_SLOT_VALUES = 1000  # different values of a slot; one with more is open
MAX_SLOT_TEMPLATES = 512  # templates whose slots are looked at
MAX_VALUES = 20_000  # of all slots together
MAX_VALUE = 64  # characters of a value that are compared
MAX_CACHED = 8192  # masked texts whose template is remembered; those of a topic repeat
MAX_KEPT = 50_000  # texts that a fit reduces once; more of them are reduced in every walk
MAX_RARITY = 20.0
GRAM_BITS = 1 << 16
MIN_SLOT_ROWS = 50
MAX_NUMBERS, MAX_DIGITS = 64, 5  # different numbers of a slot that are codes, and the digits of one
MAX_MEASURES = 8  # different amounts with a fraction or a unit that are names, such as versions
RARE_SHARE = 0.02  # of a slot's rows that may hold a rare value, for its values to count as those that repeat
EVEN = 1.5  # numbers that leave out less than a third of their range count something
DIGITS = " digits"
_NUMBER = re.compile(r"[-+]?[0-9][0-9,]{0,20}(?:\.[0-9]{1,20})?(?:[eE][-+][0-9]{1,4})?(?: ?[A-Za-zµ/%]{1,9})?")
_WHOLE = re.compile(r"[0-9]{1,18}")

Reduce = Callable[[str], tuple[str, list[str]]]
"""A text with placeholders, and what stands at each of them: `masked`."""


class TextReading(NamedTuple):
    """One text: the place of its template, -1 where none covers it; its novelty, the share of its trigrams that
    hardly any text had, 0 where it has a template; its rarity, that of its template or of its rarest value at a slot.
    """

    template: int
    novelty: float
    rarity: float


class TextReader:
    """Reads texts by a lexicon. Stateless but for a bounded cache."""

    def __init__(self, lexicon: Lexicon, reduce: Reduce) -> None:
        self._lexicon, self._reduce = lexicon, reduce
        self._tree = TemplateTree(lexicon.templates)
        self._slots = {(entry.template, entry.slot): entry for entry in lexicon.slots}
        packed = np.frombuffer(base64.b64decode(lexicon.grams), np.uint8)
        self._known = np.unpackbits(packed).astype(bool)
        self._cache: dict[str, tuple[TextReading, tuple[tuple[int, SlotValues], ...]]] = {}

    def read(self, text: str) -> TextReading:
        """How usual a text is."""
        line, values = self._reduce(text)
        entry = self._cache.get(line)
        if entry is None:
            if len(self._cache) >= MAX_CACHED:
                self._cache.clear()
            entry = self._cache[line] = self._new_entry(line)
        reading, slots = entry
        if not slots:
            return reading
        rarity = max(_rarity(slot, values[at]) for at, slot in slots if at < len(values))
        return reading if rarity <= reading.rarity else reading._replace(rarity=rarity)

    def line(self, text: str) -> str:
        """The text with its placeholders: what stands for it where no template covers it."""
        return self._reduce(text)[0]

    def _new_entry(self, line: str) -> tuple[TextReading, tuple[tuple[int, SlotValues], ...]]:
        match = self._tree.match(line)
        if match is None:
            grams = trigrams(line)
            novelty = 1.0 - float(self._known[grams].mean()) if len(grams) else 0.0
            return TextReading(-1, novelty, self._lexicon.unseen), ()
        rarity = self._lexicon.rarities[match.template]
        for slot, token in match.wild:
            known = self._slots.get((match.template, slot))
            rarity = rarity if known is None else max(rarity, _rarity(known, token))
        at_masks = ((at, self._slots.get((match.template, slot or 0))) for at, slot in enumerate(match.mask_slots))
        slots = ((at, known) for at, known in at_masks if known is not None and match.mask_slots[at] is not None)
        return TextReading(match.template, 0.0, rarity), tuple(slots)


def _rarity(slot: SlotValues, value: str) -> float:
    key = coarse(value) if slot.coarse else value[:MAX_VALUE]
    return slot.values.get(key, slot.unseen)


@lru_cache(1 << 12)
def coarse(value: str) -> str:
    """The class of a value that has too many neighbours to be looked up itself: of an address whether it is public, of
    a path its beginning, of a whole number how many digits it has; empty for any other.

    >>> coarse("10.0.0.7"), coarse("/var/log/a.txt"), coarse("4711"), coarse("alice")
    ('private', '/var', '4 digits', '')
    """
    if _WHOLE.fullmatch(value):
        return f"{len(value)}{DIGITS}"
    if value.startswith(("/", "~/")):
        return "/".join(value.split("/", 2)[:2])[:MAX_VALUE]
    try:
        address = ip_address(value)
    except ValueError:
        return ""
    return "loopback" if address.is_loopback else "private" if address.is_private else "public"


@lru_cache(1 << 10)
def trigrams(line: str) -> NDArray[np.int64]:
    """The hashed trigrams of a text's bytes, each once, in 0 … GRAM_BITS - 1.

    >>> len(trigrams("banana"))
    3
    """
    octets = np.frombuffer(line.encode("utf-8", "surrogatepass")[: 4 * MAX_TEMPLATE], np.uint8).astype(np.int64)
    return np.unique((octets[:-2] * 40503 + octets[1:-1] * 2654435 + octets[2:] * 97) % GRAM_BITS)


class _Reduced:
    """The texts with placeholders, and what stands at these. Many are made anew whenever they are walked through: kept,
    they would take more memory than the rows.
    """

    def __init__(self, texts: Iterable[str], reduce: Reduce) -> None:
        self._texts, self._reduce = texts, reduce
        first = list(islice(texts, MAX_KEPT + 1))
        self._kept = [reduce(text) for text in first] if len(first) <= MAX_KEPT else None

    def __iter__(self) -> Iterator[tuple[str, list[str]]]:
        return iter(self._kept) if self._kept is not None else map(self._reduce, self._texts)


class _Lines:
    """The first part of each."""

    def __init__(self, reduced: _Reduced) -> None:
        self._reduced = reduced

    def __iter__(self) -> Iterator[str]:
        return (line for line, _ in self._reduced)


class _Slot:
    """Rows by value at one slot, and by class of the value; None where there are too many of them."""

    __slots__ = ("classes", "values")

    def __init__(self) -> None:
        self.values: Counter[str] | None = Counter()
        self.classes: Counter[str] | None = Counter()

    def add(self, value: str) -> None:
        if self.values is not None:
            self.values[value[:MAX_VALUE]] += 1
            if len(self.values) > MAX_SLOT_VALUES:
                self.values = None
        if self.classes is not None:
            self.classes[coarse(value)] += 1
            if len(self.classes) > MAX_SLOT_VALUES:
                self.classes = None

    def learned(self, template: int, slot: int) -> SlotValues | None:
        """What is usual here; None where nothing is."""
        if self.values is not None and _repeat(self.values) and not _count_up(self.values):
            return SlotValues(template, slot, False, *_rarities(self.values))
        if self.classes is None or "" in self.classes or not _repeat(self.classes):
            return None
        unseen, rarities = _rarities(self.classes)
        digits = [int(key.removesuffix(DIGITS)) for key in rarities if key.endswith(DIGITS)]
        # Offsets and ids grow, and get one digit more some day: only what is much larger than ever says something.
        usual = {f"{number}{DIGITS}": 0.0 for number in range(1, max(digits, default=-1) + 2)}
        return SlotValues(template, slot, True, unseen, usual | rarities)


def _repeat(counts: Counter[str]) -> bool:
    """Whether values come again: hardly any row has one of the rare ones. Values that come in bursts, such as the
    number of a session, come again as well, so a few times are not enough.
    """
    total = counts.total()
    usual_count = min(max(total // 100, 3), 10)
    return total >= MIN_SLOT_ROWS and sum(n for n in counts.values() if n < usual_count) <= RARE_SHARE * total


def _count_up(counts: Counter[str]) -> bool:
    """Whether values are numbers that are no names: too many or too large ones, without gaps between them, or measures
    with a fraction or a unit.
    """
    if not all(map(_NUMBER.fullmatch, counts)):
        return False
    if not all(map(_WHOLE.fullmatch, counts)):
        return len(counts) > MAX_MEASURES
    numbers = sorted(map(int, counts))
    is_even = len(numbers) > 2 and numbers[-1] - numbers[0] < EVEN * len(numbers)
    return is_even or len(numbers) > MAX_NUMBERS or max(map(len, counts)) > MAX_DIGITS


def _rarities(counts: Counter[str], others: int = 0) -> tuple[float, dict[str, float]]:
    """The rarity of a value that is none of these, and of each of these; others: rows beside these, each with a value
    of its own."""
    total = counts.total() + others
    once = others + sum(1 for n in counts.values() if n == 1)
    rows, by_count = others, dict[int, float]()
    for count, values in sorted(Counter(counts.values()).items()):
        rows += count * values
        by_count[count] = _log_share(rows, total)
    return _log_share(once + 1, total + 1), {value: by_count[count] for value, count in sorted(counts.items())}


def _log_share(rows: int, total: int) -> float:
    return round(abs(math.log10(rows / total)), 3)


def fit_lexicon(field: str, texts: Iterable[str], limit: int, reduce: Reduce) -> Lexicon:
    """What is usual in these texts, in memory that doesn't grow with them, the same for any order of them.

    A value at a slot counts only where values repeat: hardly any row has one that is rare there, so that a new one says
    something. Else its class does, see `coarse`. Where neither repeats, nothing is kept. Rarities are tail
    probabilities of the fit's own rows; that of what never occurred is that of the rows whose like occurred once (Good,
    I. J., 1953: The population frequencies of species. Biometrika 40), so that in a topic of ever new texts another one
    is nothing special.

    It works badly for values that stay the same over the whole fit and then change for good: a day's date in a form
    that is not masked, the number of a process in a text.

    texts   walked through several times
    limit   of templates; slots of the MAX_SLOT_TEMPLATES most frequent ones are looked at
    """
    reduced = _Reduced(texts, reduce)
    templates = learn_templates(_Lines(reduced), min(limit, MAX_TEMPLATES))
    counts, slots, grams = _count(reduced, templates)
    kept = sorted((n for n in counts if n >= 0 and counts[n] > 1), key=lambda n: (-counts[n], n))
    unseen, rarities = _rarities(
        Counter({templates[n]: counts[n] for n in kept}), counts.total() - sum(counts[n] for n in kept)
    )
    place = {n: at for at, n in enumerate(kept)}
    learned = (slots[key].learned(place[key[0]], key[1]) for key in sorted(slots) if key[0] in place)
    entries, values = list[SlotValues](), 0
    for entry in filter(None, learned):
        values += len(entry.values)
        if values <= MAX_VALUES:
            entries.append(entry)
    texts_of_kept = tuple(templates[n] for n in kept)
    packed = np.packbits(grams > 1).tobytes()
    return Lexicon(
        field,
        texts_of_kept,
        tuple(rarities[text] for text in texts_of_kept),
        unseen,
        tuple(sorted(entries, key=lambda entry: (entry.template, entry.slot))),
        base64.b64encode(packed).decode(),
    )


def _count(
    reduced: _Reduced, templates: Sequence[str]
) -> tuple[Counter[int], dict[tuple[int, int], _Slot], NDArray[np.int64]]:
    """Rows by template, -1 for none, by value at each slot, and by trigram."""
    counts, slots, grams = Counter[int](), dict[tuple[int, int], _Slot](), np.zeros(GRAM_BITS, np.int64)
    find = lru_cache(MAX_CACHED)(TemplateTree(templates).match)
    for line, values in reduced:
        grams[trigrams(line)] += 1
        match = find(line)
        counts[-1 if match is None else match.template] += 1
        if match is None or match.template >= MAX_SLOT_TEMPLATES:
            continue
        masks = zip(match.mask_slots, values, strict=False)  # a template that was cut short has fewer placeholders
        for slot, value in (*masks, *match.wild):
            if slot is not None and value:
                slots.setdefault((match.template, slot), _Slot()).add(value)
    return counts, slots, grams


def require_lexicon(lexicon: Lexicon) -> None:
    """ValueError where texts could not be read by it, or it holds more than is ever learned."""
    count = len(lexicon.templates)
    known = [entry.template in range(count) and entry.slot in range(MAX_TEMPLATE) for entry in lexicon.slots]
    rarities = [rarity for entry in lexicon.slots for rarity in (entry.unseen, *entry.values.values())]
    keys = [key for entry in lexicon.slots for key in entry.values]
    if count > MAX_TEMPLATES or max(map(len, lexicon.templates), default=0) > MAX_TEMPLATE:
        raise ValueError("too many templates, or too long ones")
    if count != len(lexicon.rarities) or len(set(lexicon.templates)) < count:
        raise ValueError("templates without a rarity, or twice the same")
    if not all(known) or len({(entry.template, entry.slot) for entry in lexicon.slots}) < len(known):
        raise ValueError("slots of other templates, or twice the same")
    if len(keys) > MAX_VALUES or max(map(len, keys), default=0) > MAX_VALUE:
        raise ValueError("too many values at slots, or too long ones")
    if not all(0 <= rarity <= MAX_RARITY for rarity in (lexicon.unseen, *lexicon.rarities, *rarities)):
        raise ValueError(f"a rarity is not in 0 to {MAX_RARITY:g}")
    if len(base64.b64decode(lexicon.grams, validate=True)) * 8 != GRAM_BITS:
        raise ValueError("no bitmap of trigrams")
