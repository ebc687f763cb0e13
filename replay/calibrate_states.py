"""`replay calibrate --states`: what an engine takes asleep and off, and on the ways there and back."""

from collections.abc import Callable, Mapping
from dataclasses import replace
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any

from backends.engine_process import EngineProcess
from backends.meter import Meter
from calibrate.measure import Unfinished
from calibrate.states import StatesPlan, StatesTools, measure_states
from calibrate.states_file import FILE, read_readings
from calibrate.states_fit import power_states
from replay.calibrate_gpus import gpu_facts, watched_gpus
from replay.tables_text import describe_state
from sim.table_files import find_table, load_table, save_table

SLEEP_MODE = "enable_sleep_mode"


def measure_into(
    name: str,
    out: Path | None,
    model: str,
    options: Mapping[str, Any],
    gpus: tuple[int, ...],
    plan: StatesPlan,
    say: Callable[[str], None],
) -> None:
    """Measure the rounds that are left, or as many as there is time for.

    Args:
        name: The table, by name, folder or file.
        out: Where the readings go, None for the table's folder.
        model: A model's name or folder, the table's.
        options: vLLM engine options; sleep mode is added.
        gpus: NVML indices to meter, none for those that the engine uses.
        plan: How much.
        say: Is told what goes on.

    Raises:
        ValueError, ConnectionError: As of `calibrate.states.measure_states`.
    """
    if options.get(SLEEP_MODE, True) is not True:
        raise ValueError(
            f"{SLEEP_MODE} is {options[SLEEP_MODE]}, but only sleep mode can sleep; leave it out"
        )
    table, path = load_table(name), _folder(name, out) / FILE
    with TemporaryDirectory(prefix="replay-calibrate-") as scratch:
        tools = _tools(model, {**options, SLEEP_MODE: True}, gpus, Path(scratch))
        try:
            measure_states(path, plan, tools, table, say)
        except Unfinished as unfinished:
            say(f"{unfinished}; give the same command again to go on")
        except (KeyboardInterrupt, ConnectionError):
            say(f"interrupted; what was measured is in {path}: give the same command again to go on")
            raise


def write_states(name: str, out: Path | None, say: Callable[[str], None]) -> Path:
    """Write a table with the power states that its readings tell, say them, and return the table's folder.

    Raises:
        ValueError: There is no such table, or there are no readings.
    """
    folder = _folder(name, out)
    rounds = read_readings(folder / FILE).rounds
    if not rounds:
        raise ValueError(f"{folder / FILE}: no readings of power states; measure first, without --fit-only")
    table = load_table(name)
    states, notes = power_states(rounds, float(table.coefficients.idle_w))
    save_table(replace(table, states=states, meta={**table.meta, "states_notes": notes}), folder)
    for state, told in states.items():
        say(f"{state} {describe_state(told)}")
    for failure in notes["failures"]:
        say(f"not measured: {failure}")
    say(f"the table with its states, idle at {table.coefficients.idle_w:.1f} W, is in {folder}")
    return folder


def _folder(name: str, out: Path | None) -> Path:
    return find_table(name).parent if out is None else out


def _tools(model: str, options: dict[str, Any], gpus: tuple[int, ...], scratch: Path) -> StatesTools:
    """Return engine and meter, neither started.

    Raises:
        ValueError: There is no vLLM, no such model or no GPU that can be metered, or somebody computes on it.
    """
    engine = EngineProcess(model, options, scratch / "steps.bin")
    used, watch = watched_gpus(options, gpus)
    return StatesTools(engine, Meter(scratch / "meter.bin", used), watch, gpu_facts(watch), options)
