"""BurstGPT: whole seconds, so that equal rows are many requests, and failed calls logged as zero tokens."""

from traces.csv_format import CsvFormat

BURSTGPT = CsvFormat(
    name="burstgpt",
    time="Timestamp",
    prompt="Request tokens",
    output="Response tokens",
    clock="seconds",
    also=("Model", "Log Type"),
    zero_is_failure=True,
)
# File 3 has two columns more; calls through the API carry no session.
BURSTGPT_3 = CsvFormat(
    name="burstgpt-3",
    time="Timestamp",
    prompt="Request tokens",
    output="Response tokens",
    clock="seconds",
    also=("Model", "Log Type", "Session ID", "Elapsed time"),
    session="Session ID",
    zero_is_failure=True,
)
