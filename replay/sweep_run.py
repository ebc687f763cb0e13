"""Running the cases of a sweep: what is on disk is read, the others are simulated and kept at once."""

from collections.abc import Iterable
from contextlib import closing
from dataclasses import dataclass
from pathlib import Path

from replay.errors import one_line
from replay.late_bar import LateBar
from replay.output import say, warn
from replay.sweep_jobs import Runner
from sim.sweep import Case, evaluate
from sim.sweep_key import Inputs, inputs_of, key_of
from sim.sweep_result import Result, read_result, write_result

RESULTS = "results"


@dataclass(frozen=True, slots=True)
class Failure:
    """A combination that could not be simulated, and why, in one line."""

    inputs: Inputs
    reason: str


def run_cases(cases: Iterable[Case], out: Path, run: Runner) -> tuple[list[Result], list[Failure]]:
    """Return the results of the cases, each once, in their order, and of which there is none.

    Args:
        cases: Those that come to the same inputs count once.
        out: Folder of the sweep; it is made if need be.
        run: Simulates those whose results are not in `out`.

    Raises:
        OSError: A file cannot be read or written.
        ValueError: An option of a case is refused; nothing has been simulated then.
    """
    by_key: dict[str, tuple[Inputs, Case]] = {}
    for case in cases:
        inputs = inputs_of(case)
        by_key.setdefault(key_of(inputs), (inputs, case))
    folder = _folder(out)
    results = {key: kept for key, (inputs, _) in by_key.items() if (kept := _kept(inputs, folder))}
    failures: dict[str, Failure] = {}
    todo = {key: case for key, (_, case) in by_key.items() if key not in results}
    if results:
        say(f"{len(results)} of {len(by_key)} results are in {out} already")
    try:
        with closing(run(todo)) as answers, LateBar(len(todo), "sweeping") as bar:
            for key, answer in answers:
                inputs = by_key[key][0]
                if isinstance(answer, str):
                    failures[key] = Failure(inputs, answer)
                else:
                    results[key] = Result(inputs, answer)
                    write_result(results[key], folder)
                bar.advance(1)
    except (KeyboardInterrupt, OSError):
        done = f"{len(results)} of {len(by_key)} results are kept in {out}"
        say(f"{done}; the same command goes on from there")
        raise
    in_order = [key for key in by_key if key in results]
    return [results[key] for key in in_order], list(failures.values())


def result_of(case: Case, out: Path) -> Result | None:
    """Return the result of one case, simulated here and kept if it is not in `out`; None if that cannot be.

    Raises:
        OSError: A file cannot be read or written.
    """
    folder = _folder(out)
    try:
        inputs = inputs_of(case)
        kept = _kept(inputs, folder)
        if kept is None:
            kept = Result(inputs, evaluate(case))
            write_result(kept, folder)
    except ValueError as error:
        warn(f"left out: {one_line(error)}")
        return None
    return kept


def _folder(out: Path) -> Path:
    folder = out / RESULTS
    folder.mkdir(parents=True, exist_ok=True)
    return folder


def _kept(inputs: Inputs, folder: Path) -> Result | None:
    try:
        return read_result(inputs, folder)
    except ValueError as error:
        say(f"{one_line(error)}; it is simulated again")
        return None
