"""Every known trace format is read as its publisher meant it, and bad rows are named."""

import gzip
import json
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from traces.reading import read_trace
from traces.trace import Trace

SHARED = Path(__file__).parents[2] / "shared" / "traces"
AZURE = "TIMESTAMP,ContextTokens,GeneratedTokens"
AZURE_2025 = "TIMESTAMP,NumImages,ContextTokens,GeneratedTokens"
BURSTGPT = "Timestamp,Model,Request tokens,Response tokens,Total tokens,Log Type"
BURSTGPT_3 = "Timestamp,Session ID,Elapsed time,Model,Request tokens,Response tokens,Total tokens,Log Type"
VIDUR = "arrived_at,num_prefill_tokens,num_decode_tokens"

Read = Callable[..., Trace]


@pytest.fixture
def read(tmp_path: Path) -> Read:
    def write_and_read(*lines: str, end: str = "\n", **options: object) -> Trace:
        path = tmp_path / "some.txt"  # the name says nothing: formats are told apart by content
        path.write_bytes((end.join(lines)).encode())
        return read_trace(path, **options)  # type: ignore[arg-type]

    return write_and_read


def row(**fields: object) -> str:
    return json.dumps(fields)


def test_azure_2023_has_seven_digits_crlf_and_no_last_newline(read: Read) -> None:
    trace = read(AZURE, "2023-11-16 23:59:59.9999990,374,44", "2023-11-17 00:00:00.0000010,5,6", end="\r\n")
    assert trace.arrival_s.tolist() == [0.0, 0.000002]
    assert trace.prompt_tokens.tolist() == [374, 5]
    assert trace.output_tokens.tolist() == [44, 6]
    assert "azure-2023" in trace.source


def test_azure_2024_drops_the_fraction_of_whole_seconds(read: Read) -> None:
    trace = read(AZURE, "2024-05-12 00:00:00.999999+00:00,10,1", "2024-05-12 00:00:01+00:00,20,2")
    assert trace.arrival_s.tolist() == [0.0, 0.000001]
    assert "azure-2024" in trace.source


def test_azure_2025_images_are_not_taken_for_tokens(read: Read) -> None:
    trace = read(AZURE_2025, "2024-10-15T12:00:00.269Z,3,770,491", "2024-10-15T12:00:05.819Z,0,949,126")
    assert trace.prompt_tokens.tolist() == [770, 949]
    assert trace.arrival_s.tolist() == [0.0, 5.55]


def test_gzip_is_known_by_its_bytes(tmp_path: Path) -> None:
    path = tmp_path / "trace.csv"
    path.write_bytes(gzip.compress(f"{AZURE_2025}\n2024-10-15T12:00:00.269Z,0,770,491\n".encode()))
    assert read_trace(path).prompt_tokens.tolist() == [770]


def test_a_gzip_file_that_breaks_off_is_refused(tmp_path: Path) -> None:
    rng = np.random.default_rng(0)
    lines = [f"{t},{a},{b}" for t, (a, b) in enumerate(rng.integers(1, 10**9, size=(20_000, 2)).tolist())]
    whole = gzip.compress("\n".join([VIDUR, *lines]).encode())
    path = tmp_path / "trace.csv.gz"
    path.write_bytes(whole[: len(whole) // 2])
    with pytest.raises(ValueError, match="breaks off"):
        read_trace(path)


def test_burstgpt_keeps_equal_rows_and_leaves_out_failures(read: Read) -> None:
    ok = "5,ChatGPT,472,18,490,Conversation log"
    trace = read(BURSTGPT, ok, ok, "5,GPT-4,0,0,0,API log", "7,GPT-4,9,0,9,API log", "8,GPT-4,9,1,10,API log")
    assert trace.arrival_s.tolist() == [5.0, 5.0, 8.0]
    assert trace.notes == ("Left out 2 failed calls (zero tokens).",)


def test_burstgpt_of_nothing_but_failures_is_an_error(read: Read) -> None:
    with pytest.raises(ValueError, match="no row of 1 has tokens"):
        read(BURSTGPT, "5,GPT-4,0,0,0,API log")


def test_burstgpt_2_continues_a_clock_and_is_shifted_to_its_first_row(read: Read) -> None:
    trace = read(BURSTGPT, "5270414,ChatGPT,4,1,5,Conversation log", "5270420,ChatGPT,4,1,5,Conversation log")
    assert trace.arrival_s.tolist() == [0.0, 6.0]
    assert "5,270,414 s" in trace.notes[0]


def test_burstgpt_3_has_float_times_and_mostly_empty_sessions(read: Read) -> None:
    trace = read(
        BURSTGPT_3,
        "19440110.0,1722ac82,43,GPT-4,906,446,1352,Conversation log",
        "19440161.0,,2,ChatGPT,36,29,65,API log",
    )
    assert trace.arrival_s.tolist() == [0.0, 51.0]
    assert trace.session_id is not None
    assert trace.session_id.tolist() == ["1722ac82", None]


def test_vidur_keeps_its_own_zero_and_its_float_seconds(read: Read) -> None:
    trace = read(VIDUR, "4.314579,396,109", "4.541877,879,55")
    assert trace.arrival_s.tolist() == [4.314579, 4.541877]


def test_the_project_s_own_columns_may_come_as_csv(read: Read) -> None:
    trace = read(
        "prompt_tokens,arrival_s,output_tokens,request_class,deadline_s,session_id",
        "3,0.5,1,online,,a",
        "4,1.5,2,offline,60.5,",
    )
    assert trace.request(0).deadline_s is None
    assert trace.request(1).deadline_s == 60.5
    assert [trace.request(i).request_class for i in range(2)] == ["online", "offline"]
    assert trace.request(0).session_id == "a"


def test_mooncake_is_milliseconds_and_512_tokens_a_hash(read: Read) -> None:
    trace = read(
        row(timestamp=0, input_length=513, output_length=5, hash_ids=[7, 8]),
        row(timestamp=3001, input_length=1024, output_length=6, hash_ids=[7, 9]),
    )
    assert trace.arrival_s.tolist() == [0.0, 3.001]
    assert trace.prefix is not None
    assert trace.prefix.block_tokens == 512
    assert trace.prefix.of(1) == (7, 9)


def test_mooncake_ticks_are_said_and_spread_on_request_only(read: Read) -> None:
    lines = [
        row(timestamp=tick, input_length=600, output_length=1, hash_ids=[i, i + 1])
        for i, tick in enumerate([0] * 10 + [2997] * 10 + [6000] * 10)
    ]
    as_is = read(*lines)
    assert "--spread 3" in as_is.notes[0]
    assert len(np.unique(as_is.arrival_s)) == 3
    spread = read(*lines, spread_s=3.0, seed=1)
    assert len(np.unique(spread.arrival_s)) == 30
    assert np.array_equal(
        np.searchsorted([2.997, 6.0], spread.arrival_s, side="right"), np.repeat([0, 1, 2], 10)
    )
    assert np.array_equal(spread.arrival_s, read(*lines, spread_s=3.0, seed=1).arrival_s)
    assert not np.array_equal(spread.arrival_s, read(*lines, spread_s=3.0, seed=2).arrival_s)
    assert spread.prompt_tokens.tolist() == as_is.prompt_tokens.tolist()


def test_qwen_bailian_is_seconds_16_tokens_a_hash_and_chats_are_sessions(read: Read) -> None:
    def chat(chat_id: int, parent: int, at: float) -> str:
        return row(
            chat_id=chat_id,
            parent_chat_id=parent,
            timestamp=at,
            input_length=20,
            output_length=3,
            type="text",
            turn=1,
            hash_ids=[1, chat_id],
        )

    trace = read(chat(159, -1, 0.0), chat(160, 159, 61.114), chat(7, -1, 62.0), chat(161, 160, 70.5))
    assert trace.arrival_s.tolist() == [0.0, 61.114, 62.0, 70.5]
    assert trace.session_id is not None
    assert trace.session_id.tolist() == ["159", "159", "7", "159"]
    assert trace.prefix is not None
    assert trace.prefix.block_tokens == 16


def test_timed_trace_is_seconds_and_the_hashes_say_their_size(read: Read) -> None:
    trace = read(
        row(timestamp=12, input_length=42, output_length=8, hash_ids=[981, 4412, 7]),
        row(timestamp=13, input_length=17, output_length=8, hash_ids=[981, 5]),
    )
    assert trace.arrival_s.tolist() == [12.0, 13.0]
    assert trace.prefix is not None
    assert trace.prefix.block_tokens == 16
    assert "seconds" in trace.notes[0]
    wide = read(row(timestamp=1, input_length=100, output_length=8, hash_ids=[1, 2]))
    assert wide.prefix is not None
    assert wide.prefix.block_tokens == 64


def test_prompts_without_hashes_keep_their_length(read: Read) -> None:
    trace = read(
        row(timestamp=0.5, input_length=42, output_length=8, hash_ids=[]),
        row(timestamp=1.5, input_length=33, output_length=8, hash_ids=[1, 2, 3]),
    )
    assert trace.prompt_tokens.tolist() == [42, 33]
    assert trace.request(0).prefix_hashes == ()
    assert trace.request(1).prefix_hashes == (1, 2, 3)


def test_a_unit_that_nothing_tells_must_be_given(read: Read) -> None:
    line = row(timestamp=3000, input_length=10, output_length=8)
    with pytest.raises(ValueError, match="--format mooncake"):
        read(line)
    assert read(line, form="mooncake").arrival_s.tolist() == [3.0]
    assert read(line, form="timed-trace").arrival_s.tolist() == [3000.0]


def test_hashes_of_no_one_size_are_refused(read: Read) -> None:
    with pytest.raises(ValueError, match="line 2: a hash must stand for"):
        read(
            row(timestamp=1.5, input_length=100, output_length=1, hash_ids=[1, 2]),
            row(timestamp=2.5, input_length=100, output_length=1, hash_ids=[1, 2, 3, 4, 5]),
        )


def test_unsorted_rows_are_sorted_and_said(read: Read) -> None:
    trace = read(VIDUR, "3.0,30,1", "1.0,10,1", "2.0,20,1", "2.0,21,1")
    assert trace.arrival_s.tolist() == [1.0, 2.0, 2.0, 3.0]
    assert trace.prompt_tokens.tolist() == [10, 20, 21, 30]
    assert trace.notes == ("1 request arrives before the row above; sorted by arrival.",)


def test_a_calendar_starts_at_its_earliest_row_even_if_unsorted(read: Read) -> None:
    trace = read(AZURE, "2023-11-16 18:00:03.0000000,3,1", "2023-11-16 18:00:01.0000000,1,1")
    assert trace.arrival_s.tolist() == [0.0, 2.0]
    assert trace.prompt_tokens.tolist() == [1, 3]


@pytest.mark.parametrize(
    ("lines", "message"),
    [
        (["hello"], "unknown trace format, it begins with b'hello'"),
        ([AZURE], "no rows after the header; a trace needs at least 1 request"),
        (["TIMESTAMP,ContextTokens", "2023-11-16 18:15:00.0000000,1"], "no column GeneratedTokens; it has"),
        ([VIDUR, "1,2"], "Expected 3 columns, got 2"),
        ([VIDUR, "0,5,6", "1,-2,3"], "line 3: num_prefill_tokens must be .*, got '-2'"),
        ([VIDUR, "0,5,6", "", "1,2,NaN"], "line 4: num_decode_tokens must be .*, got 'NaN'"),
        ([VIDUR, "1,2,"], "line 2: num_decode_tokens must be .*, but is missing"),
        ([VIDUR, "1,2,3.5"], "line 2: num_decode_tokens must be .*, got '3.5'"),
        ([VIDUR, "1,2,3000000000"], "line 2: num_decode_tokens must be .*, got '3000000000'"),
        ([VIDUR, "1,0,3"], "line 2: num_prefill_tokens must be at least 1, got 0; leave such rows out"),
        ([VIDUR, "nan,1,3"], "line 2: arrived_at must be a number of seconds .*, got 'nan'"),
        ([VIDUR, "-1,1,3"], "line 2: arrived_at must be a number of seconds .*, got '-1'"),
        ([AZURE, "2023-13-16 18:15:46,1,1"], "line 2: TIMESTAMP must be a date and time"),
        ([AZURE, "2023-11-16 18:15:46,1,1", "2023-11-16 18:15:46Z,1,1"], "line 3: TIMESTAMP must be .* zone"),
        (['{"timestamp": 1}'], "line 1: no field input_length; it has timestamp"),
        (['{"timestamp": 1,'], "line 1: not JSON"),
        (
            ['{"timestamp": NaN, "input_length": 1, "output_length": 1}'],
            "line 1: timestamp must be .*, got nan",
        ),
        (
            ['{"timestamp": 0.5, "input_length": 0, "output_length": 1}'],
            "line 1: input_length must be at least 1",
        ),
        (
            ['{"timestamp": 0.5, "input_length": -7, "output_length": 1}'],
            "line 1: input_length must be .*, got -7",
        ),
        (
            ['{"timestamp": 0.5, "input_length": 7, "output_length": 1, "hash_ids": ["a"]}'],
            "hash_ids must be a list",
        ),
        ([""], "the file is empty"),
    ],
)
def test_bad_input_is_named_in_one_line(read: Read, lines: list[str], message: str) -> None:
    with pytest.raises(ValueError, match=message) as caught:
        read(*lines)
    assert "\n" not in str(caught.value)
    assert "some.txt" in str(caught.value)


def test_a_byte_order_mark_quotes_and_spaces_do_not_hide_a_column(tmp_path: Path) -> None:
    path = tmp_path / "trace.csv"
    path.write_bytes(b'\xef\xbb\xbf"arrived_at", num_prefill_tokens, num_decode_tokens\r\n"1.5", 2, 3\r\n')
    trace = read_trace(path)
    assert (trace.arrival_s[0], trace.prompt_tokens[0], trace.output_tokens[0]) == (1.5, 2, 3)


def test_a_format_given_by_name_must_fit_the_file(read: Read) -> None:
    with pytest.raises(ValueError, match="no column TIMESTAMP; it has arrived_at"):
        read(VIDUR, "1,2,3", form="azure-2023")


def test_rows_with_zero_tokens_are_left_out_and_counted_if_asked(read: Read) -> None:
    trace = read(VIDUR, "0,5,6", "1,0,3", "2,4,0", leave_out_zero=True)
    assert len(trace) == 1
    assert trace.notes == ("Left out 2 rows with zero tokens.",)


def test_a_missing_file_is_an_os_error(tmp_path: Path) -> None:
    with pytest.raises(OSError, match="nowhere"):
        read_trace(tmp_path / "nowhere.csv")


def test_an_unknown_format_name_is_refused(read: Read) -> None:
    with pytest.raises(ValueError, match="no trace format 'csw'; there are"):
        read(VIDUR, "1,2,3", form="csw")


@settings(deadline=None)
@given(st.lists(st.integers(0, 10**13), min_size=1, max_size=50))
def test_microseconds_survive_as_the_nearest_float(
    tmp_path_factory: pytest.TempPathFactory, us: list[int]
) -> None:
    start = np.datetime64("2024-05-10T00:00:00", "us")
    times = [str(start + np.timedelta64(one, "us")).replace("T", " ") for one in sorted(us)]
    path = tmp_path_factory.mktemp("exact") / "trace"
    path.write_text("\n".join([AZURE, *(f"{time}+00:00,1,1" for time in times)]))
    expected = [(one - min(us)) / 1_000_000 for one in sorted(us)]
    assert read_trace(path).arrival_s.tolist() == expected


def test_a_file_of_many_blocks_is_read_whole(tmp_path: Path) -> None:
    rows = 300_000  # more than the 4 MiB of one block
    path = tmp_path / "long.csv"
    path.write_text("\n".join([VIDUR, *(f"{i}.25,{i % 1000 + 1},{i % 10 + 1}" for i in range(rows))]))
    trace = read_trace(path)
    assert len(trace) == rows
    assert np.array_equal(trace.arrival_s, np.arange(rows) + 0.25)
    broken = path.read_text().replace("299999.25,", "299999.25,-")
    path.write_text(broken)
    with pytest.raises(ValueError, match="line 300001: num_prefill_tokens"):
        read_trace(path)


@pytest.mark.skipif(not SHARED.is_dir(), reason="the real traces are not beside the checkout")
@pytest.mark.parametrize(
    ("name", "requests", "last_s", "prompt_tokens"),
    [
        ("AzureLLMInferenceTrace_conv.csv", 19_366, 3501.721937, 14_050),
        ("AzureLLMInferenceTrace_code.csv", 8_819, 3435.948056, 7_437),
        ("mooncake_conversation_trace.jsonl", 12_031, 3536.999, 126_195),
    ],
)
def test_the_real_traces_are_read_whole(name: str, requests: int, last_s: float, prompt_tokens: int) -> None:
    trace = read_trace(SHARED / name)
    assert len(trace) == requests
    assert trace.arrival_s[[0, -1]].tolist() == [0.0, last_s]
    assert trace.prompt_tokens.max() == prompt_tokens
    assert trace.licence in ("CC-BY-4.0", "Apache-2.0")


@pytest.mark.skipif(not SHARED.is_dir(), reason="the first lines of real traces are not beside the checkout")
@pytest.mark.parametrize("head", sorted((SHARED / "heads").glob("*")), ids=lambda path: path.name)
def test_the_first_lines_of_every_published_format_are_read(head: Path) -> None:
    trace = read_trace(head)
    name = head.name.split("_")[0]
    assert trace.source.rsplit(" ", 1)[1].startswith(
        {"qwen": "qwen-bailian"}.get(name, name.rstrip("0123456789"))
    )
    assert len(trace) == sum(1 for line in head.read_text().splitlines() if line[0] in "{0123456789")
