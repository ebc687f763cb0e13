"""CSV formats: which columns mean what."""

from dataclasses import dataclass
from typing import Literal


@dataclass(frozen=True, slots=True)
class CsvFormat:
    """What a CSV format calls things; columns are found by name, so order and further columns do not matter.

    Attributes:
        name: How the format is chosen and printed.
        time: Column of the arrival.
        prompt: Column of the input tokens.
        output: Column of the output tokens.
        clock: `calendar` for dates and times, `seconds` for seconds since a zero of the file's own.
        also: Further columns by which the format is told apart.
        session: Column of the conversation.
        request_class: Column that says `online` or `offline`, used where it is there.
        deadline: Column of deadlines in seconds, used where it is there; an empty cell is no deadline.
        zero_is_failure: Whether the format logs failed calls as zero tokens; else zero is an error.
    """

    name: str
    time: str
    prompt: str
    output: str
    clock: Literal["calendar", "seconds"]
    also: tuple[str, ...] = ()
    session: str | None = None
    request_class: str | None = None
    deadline: str | None = None
    zero_is_failure: bool = False

    @property
    def needs(self) -> tuple[str, ...]:
        """The columns that a file of this format must have."""
        return (self.time, self.prompt, self.output, *self.also)
