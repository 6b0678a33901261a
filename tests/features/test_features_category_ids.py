import pytest

from tests.features.common import encode, one_field
from worker.features.learned import MISSING_PATTERN


def test_missing_is_not_zero() -> None:
    schema, fitted = one_field("numeric", [5.0, 6.0, 7.0, ...])

    vectors = encode(schema, fitted, [0, ..., None, 6])

    assert vectors.numeric[0, 0] < 0
    assert vectors.numeric[1:, 0].tolist() == pytest.approx([0, 0, 0], abs=1e-6)
    assert (vectors.numeric[1:, 0] == 0).tolist() == [False, False, True]  # missing is told from the median
    assert vectors.category_ids[:, -1].tolist() == [1, 2, 2, 1]


def test_an_unseen_pattern_of_missing_fields_has_id_0() -> None:
    schema, fitted = one_field("numeric", [1, 2, 3])

    assert encode(schema, fitted, [1, None]).category_ids[:, -1].tolist() == [1, 0]
    assert fitted.category_fields == (MISSING_PATTERN,)
    assert fitted.widths == (2,)


def test_ids_are_unknown_missing_then_values_by_frequency() -> None:
    schema, fitted = one_field("categorical", ["b", "a", "a", "c", "c", None])

    category_ids = encode(schema, fitted, ["never", None, "a", "c", "b"]).category_ids[:, 0]

    assert category_ids.tolist() == [0, 1, 2, 3, 4]
    assert fitted.widths[0] == 5


def test_values_beyond_the_limit_share_one_id() -> None:
    schema, fitted = one_field("categorical", ["a", "a", "b"], max_values=1)

    assert encode(schema, fitted, ["a", "b", "never", None]).category_ids[:, 0].tolist() == [3, 2, 2, 1]


def test_values_beyond_the_limit_spread_over_hash_buckets_and_stay_there() -> None:
    schema, fitted = one_field("categorical", list(range(100)), max_values=1, hash_buckets=8)

    category_ids = encode(schema, fitted, list(range(1, 100))).category_ids[:, 0]

    assert set(category_ids.tolist()) == set(range(2, 10))
    assert category_ids[:5].tolist() == [6, 9, 3, 3, 4]


def test_buckets_are_not_used_where_the_vocabulary_holds_everything() -> None:
    schema, fitted = one_field("categorical", ["a"], hash_buckets=8)

    assert encode(schema, fitted, ["never"]).category_ids[0, 0] == 0
    assert fitted.widths[0] == 3


def test_1_true_and_the_string_1_are_three_categories() -> None:
    schema, fitted = one_field("categorical", [1, "1", True, 1, 1, "1"])

    together = encode(schema, fitted, [1, "1", True, None]).category_ids[:, 0].tolist()
    alone = [int(encode(schema, fitted, [value]).category_ids[0, 0]) for value in (1, "1", True, None)]

    assert together == alone == [2, 3, 4, 1]
    assert encode(schema, fitted, [False]).category_ids[0, 0] == 0


def test_a_boolean_that_was_never_seen_is_unknown() -> None:
    schema, fitted = one_field("boolean", [True, True])

    assert encode(schema, fitted, [True, False, None]).category_ids[:, 0].tolist() == [2, 0, 1]
