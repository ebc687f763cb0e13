"""How late attention over a batch ends: worked out by hand, and what an order of a batch may not change."""

import numpy as np
import pytest

from calibrate.attention import WORKERS, lateness, typical_order
from calibrate.grid import Point, contexts

UNEQUAL = contexts(Point("ragged", batch=128, context_tokens=1200))


@pytest.mark.parametrize(
    ("tokens", "heads", "late"),
    [
        ([100] * WORKERS, 1, 0.0),
        ([100] * 3 * WORKERS, 1, 0.0),
        ([700, 20, 3], WORKERS, 0.0),
        # One piece is left for one worker, which reads at twice its even share: it takes half a round.
        ([100] * (WORKERS + 1), 1, (WORKERS + WORKERS / 2) / (WORKERS + 1) - 1),
        # So many pieces are left that those who work on them share all of the bandwidth: nothing is lost.
        ([100] * (WORKERS + WORKERS // 2), 1, 0.0),
    ],
)
def test_the_wait_for_the_last_worker_is_what_it_is_by_hand(
    tokens: list[int], heads: int, late: float
) -> None:
    assert lateness(tokens, heads) == pytest.approx(late, abs=1e-12)


def test_a_context_longer_than_an_even_share_is_cut() -> None:
    whole = 1000 * 128
    alone = lateness([whole], heads=1)
    assert alone < WORKERS / 2 - 1, "uncut, one worker would read it all at twice its share"


def test_attention_ends_the_later_the_later_the_longest_contexts_come() -> None:
    descending, ascending = lateness(UNEQUAL[::-1]), lateness(UNEQUAL)
    assert 0.0 <= descending < 0.01 < 0.15 < ascending
    rng = np.random.default_rng(1)
    for _ in range(20):
        assert lateness(rng.permutation(UNEQUAL).tolist()) >= descending


@pytest.mark.parametrize("heads", [1, 2, 4, 8])
def test_the_scale_of_all_contexts_hardly_matters(heads: int) -> None:
    long = [128 * tokens for tokens in UNEQUAL]
    longer = [2 * tokens for tokens in long]
    assert lateness(long, heads) == pytest.approx(lateness(longer, heads), abs=0.01)


def test_a_typical_order_is_as_late_as_random_ones_are_on_average() -> None:
    rng = np.random.default_rng(2)
    late = np.array([lateness(rng.permutation(UNEQUAL).tolist()) for _ in range(200)])
    chosen = []
    for seed in range(5):
        order = typical_order(UNEQUAL, seed)
        assert sorted(order) == list(range(len(UNEQUAL)))
        assert order == typical_order(UNEQUAL, seed)
        chosen.append(lateness([UNEQUAL[i] for i in order]))
    assert len({tuple(typical_order(UNEQUAL, seed)) for seed in range(5)}) == 5
    assert np.std(chosen) < np.std(late) / 2
    assert np.mean(chosen) == pytest.approx(late.mean(), abs=late.std() / 2)


def test_a_batch_of_nobody_or_one_has_one_order() -> None:
    assert typical_order([], 0) == []
    assert typical_order([500], 3) == [0]


def test_equal_contexts_stay_in_their_order() -> None:
    assert typical_order([500] * 4, 3) == [0, 1, 2, 3]
