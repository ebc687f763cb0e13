"""Sweeps: the combinations of a grid, told apart by what each comes to, and what one of them costs."""

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field, fields, replace
from functools import lru_cache
from itertools import product
from pathlib import Path

from sim.fleet_file import read_fleet
from sim.footprint import Rates, with_footprint
from sim.length_prediction import predict_lengths
from sim.options import ALIASES, EngineOptions, FleetOptions, from_strings, options_among
from sim.policy import Policy
from sim.pools import Pools
from sim.registry import make_policy, members_of, settings_of_policy
from sim.serving import Setup
from sim.settings import parse_settings
from sim.simulate import simulate_fleet
from sim.slo import Slo
from sim.summary import Summary, summarize
from sim.sweep_grid import Axis
from sim.table import CostTable
from sim.table_files import DEFAULT, find_table, load_table
from traces.reading import read_trace
from traces.selection import select
from traces.trace import Trace

TRACES_KEPT, TABLES_KEPT = 2, 8


@dataclass(frozen=True, slots=True)
class Case:
    """One replay of a sweep, its options as text, as `replay run` takes them.

    Attributes:
        trace: File of the requests.
        policy: A policy's name, or `FILE.py:CLASS`.
        settings: Options of the policy.
        engine: Options of the engine, beyond those of the table.
        fleet: Fields of `FleetOptions`.
        table: Cost table, by name or file.
        fleet_file: File of the pools, which takes the place of `engine`, `fleet` and `table`.
        from_s, to_s, limit, stretch: Which requests, see `traces.selection.select`.
        length_prediction: What the policy is told of output lengths, see `sim.length_prediction`.
        seed: Of what is drawn.
        limits: Of each request, for the summary's attainment and goodput.
        rates: For the summary's carbon and price.
    """

    trace: Path
    policy: str = "immediate"
    settings: Mapping[str, str] = field(default_factory=dict)
    engine: Mapping[str, str] = field(default_factory=dict)
    fleet: Mapping[str, str] = field(default_factory=dict)
    table: str = DEFAULT
    fleet_file: Path | None = None
    from_s: float | None = None
    to_s: float | None = None
    limit: int | None = None
    stretch: float = 1.0
    length_prediction: str = "none"
    seed: int = 0
    limits: tuple[Slo, ...] = ()
    rates: Rates = field(default_factory=Rates)

    def make_policy(self) -> Policy:
        """Return a fresh policy.

        Raises:
            ValueError: There is no such policy, or it refuses an option.
        """
        return make_policy(self.policy, self.settings, self.seed)

    def engine_options(self) -> EngineOptions:
        """Return all options of the engine.

        Raises:
            ValueError: There is no such option, or vLLM refuses it.
        """
        return from_strings(self.engine, options_among(_table(self.table).engine))

    def fleet_options(self) -> FleetOptions:
        """Return all options of the fleet; the router of one replica has no choice, so it is the default.

        Raises:
            ValueError: There is no such option, or its value is refused.
        """
        given = parse_settings(FleetOptions, self.fleet, "the fleet")
        if given.get("replicas", 1) == 1 and given.keys() <= {"replicas", "router"}:
            FleetOptions(**{**given, "replicas": 2})  # refuses a router that there is not
            return FleetOptions()
        return FleetOptions(**given)

    def setup(self) -> Setup | Pools:
        """Return what serves the requests.

        Raises:
            OSError: A file cannot be read.
            ValueError: An option or the file of the pools is refused, or both are given.
        """
        if self.fleet_file is None:
            return Setup(self.engine_options(), self.fleet_options(), _table(self.table))
        for name in (*self.fleet, *self.engine):
            raise ValueError(f"{name} goes into the file that --fleet names; leave it out")
        return read_fleet(self.fleet_file)

    def read_trace(self) -> Trace:
        """Return the requests, with what the policy is told of their outputs.

        Raises:
            OSError: The file cannot be read.
            ValueError: It is no trace, or nothing of it is left.
        """
        whole = _trace(self.trace, self.trace.stat().st_mtime_ns)
        part = select(whole, from_s=self.from_s, to_s=self.to_s, limit=self.limit, stretch=self.stretch)
        return predict_lengths(part, self.length_prediction, self.seed)


def combinations(
    base: Case,
    traces: Sequence[Path],
    policies: Sequence[str],
    axes: Sequence[Axis],
    fleets: Sequence[Path] = (),
) -> Iterator[Case]:
    """Yield every combination of traces, fleets, policies and values.

    An option goes to the policies that have it.

    Args:
        base: What holds where no axis says otherwise.
        traces: Files, at least one.
        policies: Names, at least one.
        axes: No two of them of one name and policy.
        fleets: Files of pools; none for the fleet of `base`.

    Raises:
        ValueError: An axis is of no input and of no policy's option, two are the same, a value is refused, or
            two files of traces or fleets share a name.
    """
    _check(axes, policies)
    _ensure_named_apart(traces)
    _ensure_named_apart(fleets)
    for trace, fleet, policy in product(traces, fleets or (base.fleet_file,), policies):
        own = [axis for axis in axes if _applies(axis, policy)]
        for values in product(*(axis.values for axis in own)):
            case = replace(base, trace=trace, policy=policy, fleet_file=fleet)
            for axis, value in zip(own, values, strict=True):
                is_of_member = axis.policy not in (None, policy)
                case = put(case, f"{axis.policy}.{axis.name}" if is_of_member else axis.name, value)
            yield case


def put(case: Case, name: str, value: str) -> Case:
    """Return `case` with one input changed: an option of its policy, of the fleet, of the engine, or another.

    Raises:
        ValueError: There is no such input, or the value does not parse.
    """
    if name.rpartition(".")[2] in settings_of_policy(case.policy):
        return replace(case, settings={**case.settings, name: value})
    if name in _fleet_names():
        return replace(case, fleet={**case.fleet, name: value})
    if name in _engine_names():
        return replace(case, engine={**case.engine, name: value})
    if name == "length_prediction":
        return replace(case, length_prediction=value)
    if name == "stretch":
        return replace(case, stretch=_number(name, value))
    raise ValueError(_unknown(name, [case.policy]))


def evaluate(case: Case) -> Summary:
    """Simulate one replay and return what it comes to; trace and table are read once a process.

    Raises:
        OSError: A file cannot be read.
        ValueError: It cannot be simulated.
    """
    policy, setup = case.make_policy(), case.setup()
    run = simulate_fleet(case.read_trace(), policy, setup, seed=case.seed)
    return summarize(with_footprint(run, case.rates), case.limits)


def _check(axes: Sequence[Axis], policies: Sequence[str]) -> None:
    names = [(axis.policy, axis.name) for axis in axes]
    for axis in axes:
        if names.count((axis.policy, axis.name)) > 1:
            raise ValueError(f"--grid {axis.name} is given twice; give all its values at once")
        if axis.policy is not None and not any(_is_of(axis.policy, policy) for policy in policies):
            raise ValueError(f"--grid {axis.policy}.{axis.name}: no --policy {axis.policy}; give it, too")
        if not any(_applies(axis, policy) for policy in policies):
            raise ValueError(_unknown(axis.name, [axis.policy] if axis.policy else policies))


def _ensure_named_apart(files: Sequence[Path]) -> None:
    paths = dict.fromkeys(files)
    names = [path.stem for path in paths]
    double = next((path for path in paths if names.count(path.stem) > 1), None)
    if double is not None:
        raise ValueError(f"{double}: another file is named {double.stem}, too; rename one to tell them apart")


def _applies(axis: Axis, policy: str) -> bool:
    if axis.policy is not None:
        return _is_of(axis.policy, policy) and axis.name in settings_of_policy(axis.policy)
    return axis.name in _shared_names() or axis.name in settings_of_policy(policy)


def _is_of(named: str, policy: str) -> bool:
    """Say whether a policy is the one named, or has it as a member."""
    return named in (policy, *members_of(policy))


def _unknown(name: str, policies: Sequence[str]) -> str:
    options = {option for policy in policies for option in settings_of_policy(policy)}
    of_policies = f"options of {', '.join(policies)}: {', '.join(sorted(options)) or 'none'}"
    return f"no input {name!r} to vary; there are {', '.join(sorted(_shared_names()))}; {of_policies}"


def _shared_names() -> set[str]:
    return {*_fleet_names(), *_engine_names(), "length_prediction", "stretch"}


def _fleet_names() -> set[str]:
    return {option.name for option in fields(FleetOptions)}


def _engine_names() -> set[str]:
    return {*(option.name for option in fields(EngineOptions)), *ALIASES}


def _number(name: str, text: str) -> float:
    try:
        return float(text)
    except ValueError:
        raise ValueError(f"{name} must be a number, got {text!r}") from None


@lru_cache(TRACES_KEPT)
def _trace(path: Path, changed_ns: int) -> Trace:  # noqa: ARG001
    return read_trace(path)


def _table(name: str) -> CostTable:
    path = find_table(name)
    return _table_in(path, path.stat().st_mtime_ns)


@lru_cache(TABLES_KEPT)
def _table_in(path: Path, changed_ns: int) -> CostTable:  # noqa: ARG001
    return load_table(str(path))
