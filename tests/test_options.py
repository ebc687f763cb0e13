"""Engine options: vLLM's names, vLLM's rules, one-line errors."""

import pytest

from sim.options import EngineOptions, from_strings


def test_names_are_taken_as_vllm_writes_them() -> None:
    given = {"--max-num-seqs": "128", "num_gpu_blocks_override": "99", "no-async-scheduling": ""}
    assert from_strings(given) == EngineOptions(max_num_seqs=128, num_gpu_blocks=99, async_scheduling=False)


@pytest.mark.parametrize(("text", "value"), [("true", True), ("False", False), ("1", True), ("no", False)])
def test_flags_take_true_and_false(text: str, value: bool) -> None:
    assert from_strings({"enable_prefix_caching": text}).enable_prefix_caching is value
    assert from_strings({"no_enable_prefix_caching": text}).enable_prefix_caching is not value


def test_what_is_not_given_comes_from_the_defaults() -> None:
    defaults = EngineOptions(max_num_batched_tokens=2048, max_num_seqs=128)
    assert from_strings({"block_size": "32"}, defaults) == EngineOptions(2048, 128, block_size=32)


def test_a_smaller_budget_lowers_the_seats_not_given() -> None:
    assert from_strings({"max_num_batched_tokens": "512"}).max_num_seqs == 512


def test_a_budget_not_given_covers_the_longest_prompt_without_chunked_prefill() -> None:
    options = from_strings({"enable_chunked_prefill": "false", "max_model_len": "40000"})
    assert options.max_num_batched_tokens == 40000


@pytest.mark.parametrize(
    ("given", "message"),
    [
        ({"max_num_seq": "1"}, "no engine option 'max_num_seq'; there are async_scheduling, block_size, "),
        ({"max_num_seqs": "many"}, "max_num_seqs must be a whole number, got 'many'"),
        ({"max_num_seqs": "0"}, "max_num_seqs must be >= 1, got 0"),
        ({"num_gpu_blocks": "1"}, "num_gpu_blocks must be >= 2, got 1"),
        ({"no_max_num_seqs": "1"}, "no engine option 'no_max_num_seqs'"),
        ({"async_scheduling": "perhaps"}, "async_scheduling must be true or false, got 'perhaps'"),
        ({"scheduling_policy": "lifo"}, "scheduling_policy must be one of fcfs, priority, got 'lifo'"),
        ({"max_num_seqs": "9000"}, "max_num_batched_tokens must be >= max_num_seqs"),
        (
            {"no_enable_chunked_prefill": "", "max_num_batched_tokens": "2048"},
            "without chunked prefill max_num_batched_tokens must be >= max_model_len",
        ),
    ],
)
def test_what_vllm_refuses_is_refused_in_one_line(given: dict[str, str], message: str) -> None:
    with pytest.raises(ValueError, match=message) as error:
        from_strings(given)
    assert "\n" not in str(error.value)
