"""Prompts are as long as the trace says and share what its prefix hashes share, no more."""

from dataclasses import replace

import numpy as np
import pytest
from toy_trace import toy_trace

from backends.prompts import LEAST_TOKEN, make_prompts
from traces.trace import PrefixBlocks, Trace

VOCABULARY = 32000


def hashed_trace() -> Trace:
    """Three prompts: the first two share two blocks of 16 tokens, the third begins with another block."""
    prefix = PrefixBlocks(
        hashes=np.array([5, -6, 7, 5, -6, 8, 9, 5], dtype=np.int64),
        offsets=np.array([0, 3, 6, 8], dtype=np.int64),
        block_tokens=16,
    )
    return replace(toy_trace([0.0, 1.0, 2.0], [40, 48, 40]), prefix=prefix)


def test_prompts_have_the_lengths_of_the_trace_and_tokens_of_the_vocabulary() -> None:
    prompts = make_prompts(toy_trace([0.0, 1.0], [1, 5000]), 1000, 0, "a")
    assert [len(prompt) for prompt in prompts] == [1, 5000]
    assert min(prompts[1]) >= LEAST_TOKEN
    assert max(prompts[1]) == 999
    assert all(type(token) is int for token in prompts[1])


def test_equal_hashes_become_equal_blocks() -> None:
    one, two, three = make_prompts(hashed_trace(), VOCABULARY, 0, "a")
    assert [len(one), len(two), len(three)] == [40, 48, 40]
    assert one[:32] == two[:32]
    assert one[32:40] != two[32:40]
    assert one[:16] != three[:16]
    assert one[:16] == three[16:32]


def test_a_prompt_longer_than_its_hashes_ends_in_tokens_of_its_own() -> None:
    trace = replace(hashed_trace(), prompt_tokens=np.array([64, 64, 40], dtype=np.int32))
    one, two, _ = make_prompts(trace, VOCABULARY, 0, "a")
    assert one[:32] == two[:32]
    assert one[48:] != two[48:]


def test_prompts_are_made_again_by_seed_and_name_and_shared_by_no_other_replay() -> None:
    trace = hashed_trace()
    once = make_prompts(trace, VOCABULARY, 0, "a")
    assert make_prompts(trace, VOCABULARY, 0, "a") == once
    for other in (make_prompts(trace, VOCABULARY, 0, "b"), make_prompts(trace, VOCABULARY, 1, "a")):
        assert all(mine[:16] != theirs[:16] for mine, theirs in zip(once, other, strict=True))


def test_a_vocabulary_without_ordinary_tokens_is_refused() -> None:
    with pytest.raises(ValueError, match="more than 10 tokens, got 10"):
        make_prompts(toy_trace([0.0]), 10, 0, "a")
