"""Cases: what `replay validate` replays, from a plan file or the command line."""

import json
import re
from collections.abc import Mapping
from dataclasses import asdict, dataclass, field, fields
from pathlib import Path
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from sim.policy import Policy
    from traces.trace import Trace

SELECTION = ("from_s", "to_s", "limit", "stretch")


@dataclass(frozen=True, slots=True)
class Case:
    """One replay of a plan.

    Attributes:
        name: Name of its folder: letters, digits, `.`, `_` and `-`.
        trace: Path of the trace, or name of a public one that was fetched.
        policy: As `--policy` takes it.
        settings: The policy's options, as `--set` takes them.
        from_s, to_s, limit, stretch: Which requests, see `traces.selection.select`.
        length_prediction: What the policy is told of output lengths, see `sim.length_prediction`.
        repeats: How often it is measured.
    """

    name: str
    trace: str
    policy: str = "immediate"
    settings: Mapping[str, str] = field(default_factory=dict)
    from_s: float | None = None
    to_s: float | None = None
    limit: int | None = None
    stretch: float | None = None
    length_prediction: str = "none"
    repeats: int = 1

    def __post_init__(self) -> None:
        if not re.fullmatch(r"[A-Za-z0-9_-][A-Za-z0-9._-]*", self.name):
            raise ValueError(f"a case's name must be letters, digits, '.', '_' and '-', got {self.name!r}")
        if self.repeats < 1:
            raise ValueError(f"case {self.name}: repeats must be >= 1, got {self.repeats}")

    @property
    def selection(self) -> dict[str, Any]:
        """What was given of the selection."""
        chosen = {name: getattr(self, name) for name in SELECTION}
        return {name: value for name, value in chosen.items() if value is not None}

    def read_trace(self) -> "Trace":
        """Return the requests.

        Raises:
            ValueError: The trace cannot be read or nothing of it is left.
        """
        from sim import sweep

        return sweep.Case(self._trace_path(), **self.selection).read_trace()

    def _trace_path(self) -> Path:
        from traces.fetch import located

        path = located(self.trace)
        if not path.exists():
            raise ValueError(f"{path}: no such file; case {self.name} names it as its trace")
        return path

    def predict(self, trace: "Trace", seed: int) -> "Trace":
        """Return the requests with what policies are told of their outputs.

        Raises:
            ValueError: There is no such prediction.
        """
        from sim.length_prediction import predict_lengths

        return predict_lengths(trace, self.length_prediction, seed)

    def make_policy(self, seed: int) -> "Policy":
        """Return a fresh policy."""
        from sim.registry import make_policy

        return make_policy(self.policy, self.settings, seed)


def read_plan(path: Path) -> list[Case]:
    """Return the cases of a plan: a JSON list of objects whose keys are the fields of `Case`.

    Raises:
        OSError: The file cannot be read.
        ValueError: It is not a plan, or two cases share a name.
    """
    try:
        entries = json.loads(path.read_text())
    except json.JSONDecodeError as error:
        raise ValueError(f"{path}: not JSON ({error})") from error
    if not isinstance(entries, list) or not entries:
        raise ValueError(f"{path}: a plan is a JSON list of at least one case")
    cases = [_case(entry, path) for entry in entries]
    names = [case.name for case in cases]
    double = next((name for name in names if names.count(name) > 1), None)
    if double is not None:
        raise ValueError(f"{path}: two cases are named {double!r}; each needs a folder of its own")
    return cases


def write_case(case: Case, path: Path) -> None:
    """Write one case as JSON."""
    path.write_text(json.dumps(asdict(case), indent=2) + "\n")


def read_case(path: Path) -> Case:
    """Return the case that `write_case` wrote.

    Raises:
        OSError: The file cannot be read.
        ValueError: It is not a case.
    """
    try:
        return _case(json.loads(path.read_text()), path)
    except json.JSONDecodeError as error:
        raise ValueError(f"{path}: not JSON ({error})") from error


def _case(entry: Any, path: Path) -> Case:
    known = {field.name for field in fields(Case)}
    if not isinstance(entry, dict) or not {"name", "trace"} <= entry.keys() <= known:
        raise ValueError(
            f"{path}: a case has name, trace and any of {', '.join(sorted(known))}; got {entry!r}"
        )
    settings = entry.get("settings") or {}
    if not isinstance(settings, dict):
        raise ValueError(f"{path}: settings must be an object, got {settings!r}")
    texts = {name: value if isinstance(value, str) else json.dumps(value) for name, value in settings.items()}
    return Case(**{**entry, "settings": texts})
