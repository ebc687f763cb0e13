"""One replay of a sweep: its options as text, and what it comes to."""

from collections.abc import Mapping
from dataclasses import dataclass, field
from functools import lru_cache
from pathlib import Path

from sim.fleet_file import read_fleet
from sim.footprint import Rates, with_footprint
from sim.length_prediction import predict_lengths
from sim.options import EngineOptions, FleetOptions, from_strings, options_among
from sim.policy import Policy
from sim.pools import Pools
from sim.registry import make_policy
from sim.serving import Setup
from sim.settings import parse_settings
from sim.simulate import simulate_fleet
from sim.slo import Slo
from sim.summary import Summary, summarize
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


def evaluate(case: Case) -> Summary:
    """Simulate one replay and return what it comes to; trace and table are read once a process.

    Raises:
        OSError: A file cannot be read.
        ValueError: It cannot be simulated.
    """
    policy, setup = case.make_policy(), case.setup()
    run = simulate_fleet(case.read_trace(), policy, setup, seed=case.seed)
    return summarize(with_footprint(run, case.rates), case.limits)


@lru_cache(TRACES_KEPT)
def _trace(path: Path, changed_ns: int) -> Trace:  # noqa: ARG001
    return read_trace(path)


def _table(name: str) -> CostTable:
    path = find_table(name)
    return _table_in(path, path.stat().st_mtime_ns)


@lru_cache(TABLES_KEPT)
def _table_in(path: Path, changed_ns: int) -> CostTable:  # noqa: ARG001
    return load_table(str(path))
