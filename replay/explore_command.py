"""The command that replays what the page shows."""

from collections.abc import Iterator
from dataclasses import asdict

from sim.options import FleetOptions, options_among
from sim.settings import as_text
from sim.sweep import Case
from sim.table_files import load_table


def command_of(case: Case) -> Iterator[str]:
    """Yield the words of the command that replays the same."""
    yield from ("replay", "run", str(case.trace), "--policy", case.policy, "--table", case.table)
    for name, text in case.settings.items():
        if text != "none":
            yield from ("--set", f"{name}={text}")
    table = asdict(options_among(load_table(case.table).engine))
    for name, value in asdict(case.engine_options()).items():
        if value != table[name]:
            yield from ("--engine", f"{name}={as_text(value)}")
    fleet = case.fleet_options()
    for name, value in asdict(fleet).items():
        if value != getattr(FleetOptions(), name) and (name != "router" or fleet.replicas > 1):
            yield from (f"--{name}", as_text(value))
    for name in ("from_s", "to_s", "limit", "stretch", "length_prediction", "seed"):
        value = getattr(case, name)
        if value is not None and value != getattr(Case(case.trace), name):
            yield from (f"--{name.replace('_', '-')}", as_text(value))
