"""Azure's LLM inference traces: dates and times, three spellings of them."""

from traces.csv_format import CsvFormat

# No zone and seven digits of fraction; taken as UTC.
AZURE_2023 = CsvFormat(
    name="azure-2023", time="TIMESTAMP", prompt="ContextTokens", output="GeneratedTokens", clock="calendar"
)
# The header of 2023, but `+00:00`, and a fraction only where it is not zero.
AZURE_2024 = CsvFormat(
    name="azure-2024", time="TIMESTAMP", prompt="ContextTokens", output="GeneratedTokens", clock="calendar"
)
# Milliseconds and `Z`; the number of images stands second, so that columns must be found by name.
AZURE_2025 = CsvFormat(
    name="azure-2025",
    time="TIMESTAMP",
    prompt="ContextTokens",
    output="GeneratedTokens",
    clock="calendar",
    also=("NumImages",),
)
