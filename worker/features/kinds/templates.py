"""Templates of texts: what texts of one sort have in common, with `<*>` where they differ, learned and looked up."""

import re
from collections import Counter, defaultdict
from collections.abc import Iterable, Mapping, Sequence
from functools import lru_cache
from heapq import nsmallest
from typing import NamedTuple
from zlib import crc32

import numpy as np

from worker.features.kinds.masks import MAX_TEMPLATE

WILD = "<*>"
MAX_TOKENS = 64  # of a text; what follows is one more
MAX_LINES = 10_000  # different masked texts that templates are learned from
MAX_LEAF = 64  # templates below one node
DEPTH = 3  # first words that a tree is made of, below the number of tokens
MAX_CHILDREN = 100  # of a node; words beyond share one
SIMILARITY = 0.7  # least share of equal words of a text and its template
MIN_VARIANTS = 8  # so many templates that differ in one place are one template
ROUNDS = 4  # of looking for them: texts differ in several places
_COUNTERS = 1 << 20
_MASK = re.compile(r"<[a-z]+>")


def tokens_of(line: str) -> tuple[str, ...]:
    """The words of a masked text, at most MAX_TOKENS and a rest.

    >>> tokens_of("login  of <num>")
    ('login', 'of', '<num>')
    """
    words = line.split(None, MAX_TOKENS)
    return (*words[:MAX_TOKENS], WILD) if len(words) > MAX_TOKENS else tuple(words)


def learn_templates(lines: Iterable[str], limit: int) -> list[str]:
    """The templates of these masked texts, at most `limit`, those of more texts first; of a text that has no like,
    none. The same for any order of the texts, in bounded memory for any number of them.

    Two steps. First a tree of fixed depth, as Drain has it: texts with equally many tokens and the same first three
    words, tokens that are more than a mask, lie at one leaf. There a text belongs to the template with the most equal
    words, at least 70% of them; where it differs, the template gets a wildcard. Drain takes texts as they come. Here
    the more frequent ones come first, and equally frequent ones by their letters, so that the order of a stream doesn't
    matter. Then templates that differ in one place only, and there in at least 8 ways, become one: this finds what
    varies in the first words, where a fixed tree can't.

    It works badly for texts of one sort with different numbers of words (a list of names): each number has a template
    of its own. Long texts that differ in few words are taken for one sort, also where it is the verb that differs.

    lines   walked through twice
    limit   of templates; MAX_LINES different texts are kept, the more frequent ones by a count that texts of the same
            hash share, and MAX_LEAF templates at a leaf

    He, P., Zhu, J., Zheng, Z., Lyu, M. R. (2017): Drain: An online log parsing approach with fixed depth tree. ICWS.

    >>> names = ["Ann", "Bob", "Cem", "Dan", "Eve", "Flo", "Gus", "Hal"]
    >>> learn_templates([f"login of {name} from <ip>" for name in names] + ["disk full"] * 2, limit=10)
    ['login of <*> from <ip>', 'disk full']
    """
    counts = _frequent(lines)
    leaves: dict[tuple[int, tuple[str, ...]], list[_Group]] = defaultdict(list)
    children: dict[tuple[int, tuple[str, ...]], set[str]] = defaultdict(set)
    for line, count in sorted(counts.items(), key=lambda entry: (-entry[1], entry[0])):
        tokens = tokens_of(line)
        if tokens:
            _add(leaves[_path(tokens, children)], tokens, count)
    groups: Counter[tuple[str, ...]] = Counter()
    for leaf in leaves.values():
        for group in leaf:
            groups[tuple(group.tokens)] += group.count
    merged = _without_variants(groups)
    ranked = sorted((-count, " ".join(tokens)) for tokens, count in merged.items() if count > 1)
    return [template for _, template in ranked if len(template) <= MAX_TEMPLATE][:limit]


def _frequent(lines: Iterable[str]) -> dict[str, int]:
    """The MAX_LINES texts of the highest count, and that count. A count is that of all texts with the same hash, so
    that it takes no memory for each text, and whether a text is kept depends on no order.
    """
    counters = np.zeros(_COUNTERS, np.int64)
    for line in lines:
        counters[_hash(line)] += 1
    kept: dict[str, tuple[int, int, str]] = {}
    bar: tuple[int, int, str] | None = None  # what is behind it is among the best no more
    for line in lines:
        if line in kept:
            continue
        at = _hash(line)
        rank = (-int(counters[at]), at, line)
        if bar is None or rank < bar:
            kept[line] = rank
        if len(kept) >= 2 * MAX_LINES:
            best = nsmallest(MAX_LINES, kept.values())
            bar, kept = best[-1], {rank[2]: rank for rank in best}
    return {line: -minus for minus, _, line in nsmallest(MAX_LINES, kept.values())}


def _hash(line: str) -> int:
    return crc32(line.encode("utf-8", "surrogatepass")) & (_COUNTERS - 1)


class _Group:
    """Texts of one template while it is learned."""

    __slots__ = ("count", "tokens")

    def __init__(self, tokens: tuple[str, ...], count: int) -> None:
        self.tokens, self.count = list(tokens), count

    def likeness(self, tokens: tuple[str, ...]) -> float:
        """The share of equal words of a text with equally many tokens."""
        equal = words = 0
        for own, token in zip(self.tokens, tokens, strict=True):
            if own != token:
                words += 1
            elif not _is_mask(token):
                words += 1
                equal += 1
        return equal / words if words else 1.0


@lru_cache(1 << 12)
def _is_mask(token: str) -> bool:
    return _MASK.fullmatch(token.rstrip(",.:;")) is not None


@lru_cache(1 << 12)
def _masks(token: str) -> int:
    return len(_MASK.findall(token))


def _path(
    tokens: tuple[str, ...], children: dict[tuple[int, tuple[str, ...]], set[str]]
) -> tuple[int, tuple[str, ...]]:
    """The leaf of a text: the number of its tokens, and its first words as far as they have a node of their own."""
    path: tuple[str, ...] = ()
    for word in [token for token in tokens if not _is_mask(token)][:DEPTH]:
        nodes = children[len(tokens), path]
        is_full = word not in nodes and len(nodes) >= MAX_CHILDREN
        nodes.add(WILD if is_full else word)
        path = (*path, WILD if is_full else word)
    return len(tokens), path


def _add(leaf: list[_Group], tokens: tuple[str, ...], count: int) -> None:
    best = max(leaf, key=lambda group: group.likeness(tokens), default=None)  # the first of several
    if best is not None and best.likeness(tokens) >= SIMILARITY:
        best.tokens = [own if own == token else WILD for own, token in zip(best.tokens, tokens, strict=True)]
        best.count += count
    elif len(leaf) < MAX_LEAF:
        leaf.append(_Group(tokens, count))


def _without_variants(groups: Mapping[tuple[str, ...], int]) -> dict[tuple[str, ...], int]:
    """The templates with their counts, those that differ in one place only as one."""
    left = dict(groups)
    for _ in range(ROUNDS):
        variants: dict[tuple[str, ...], list[tuple[str, ...]]] = defaultdict(list)
        for tokens in left:
            for place, token in enumerate(tokens if len(tokens) > 1 else ()):
                if not _is_mask(token) and token != WILD:
                    variants[(*tokens[:place], WILD, *tokens[place + 1 :])].append(tokens)
        before = len(left)
        for wider, members in sorted(variants.items(), key=lambda entry: (-len(entry[1]), entry[0])):
            there = [tokens for tokens in members if tokens in left]
            if len(there) >= MIN_VARIANTS and any(token != WILD for token in wider):
                left[wider] = left.get(wider, 0) + sum(map(left.pop, there))
        if len(left) == before:
            break
    return left


class Match(NamedTuple):
    """The template of a text, and where its parameters stand.

    template     its place among the templates
    mask_slots   the slot of each mask of the text, None where a wildcard covers it
    wild         slot and token of each wildcard
    """

    template: int
    mask_slots: tuple[int | None, ...]
    wild: tuple[tuple[int, str], ...]


class _Node:
    """A node of the tree: what follows by token, and the template that ends here."""

    __slots__ = ("children", "template")

    def __init__(self) -> None:
        self.children: dict[str, _Node] = {}
        self.template: int | None = None


class TemplateTree:
    """Finds the template of a masked text: the one of as many tokens that has, from the left, the token itself before a
    wildcard. A text that differs from a template in another place has none, however alike it is. Learns nothing.

    A slot is a mask or a wildcard of a template, counted from its left.
    """

    def __init__(self, templates: Sequence[str]) -> None:
        self._roots: dict[int, _Node] = defaultdict(_Node)
        self._tokens = [tuple(template.split()) for template in templates]
        for number, tokens in enumerate(self._tokens):
            node = self._roots[len(tokens)]
            for token in tokens:
                node = node.children.setdefault(token, _Node())
            node.template = number if node.template is None else node.template

    def match(self, line: str) -> Match | None:
        """The template of a masked text; None where none covers it."""
        tokens = tokens_of(line)
        number = self._find(tokens)
        return None if number is None else self._slots(number, tokens)

    def _find(self, tokens: tuple[str, ...]) -> int | None:
        root = self._roots.get(len(tokens))
        left = [] if root is None else [(root, 0)]
        while left:  # each node is looked at once at most: no text costs more than there are nodes
            node, at = left.pop()
            if at == len(tokens):
                return node.template
            following = dict.fromkeys((WILD, tokens[at]))
            left += [(node.children[token], at + 1) for token in following if token in node.children]
        return None

    def _slots(self, number: int, tokens: tuple[str, ...]) -> Match:
        slot, masks, wild = 0, list[int | None](), list[tuple[int, str]]()
        for own, token in zip(self._tokens[number], tokens, strict=True):
            masked = _masks(token)
            if own == WILD:
                masks += [None] * masked
                wild.append((slot, token))
                slot += 1
            else:
                masks += range(slot, slot + masked)
                slot += masked
        return Match(number, tuple(masks), tuple(wild))
