"""CSV formats that already count seconds from a zero of their own."""

from traces.csv_format import CsvFormat

VIDUR = CsvFormat(
    name="vidur", time="arrived_at", prompt="num_prefill_tokens", output="num_decode_tokens", clock="seconds"
)
# The columns of the project's Parquet files, as text.
PLAIN = CsvFormat(
    name="csv",
    time="arrival_s",
    prompt="prompt_tokens",
    output="output_tokens",
    clock="seconds",
    session="session_id",
    request_class="request_class",
    deadline="deadline_s",
)
