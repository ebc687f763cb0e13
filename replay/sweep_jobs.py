"""Where the replays of a sweep run: here, over the cores, or on a Ray cluster; the results are the same."""

from collections.abc import Callable, Generator, Mapping
from concurrent.futures import ProcessPoolExecutor, as_completed
from concurrent.futures.process import BrokenProcessPool
from dataclasses import replace
from multiprocessing import active_children, get_context
from pathlib import Path
from signal import SIG_DFL, SIGINT, signal

from replay.errors import one_line
from sim.compiled import cache_folder
from sim.summary import Summary
from sim.sweep import Case, evaluate

Answer = Summary | str
"""What a replay came to, or why it could not be simulated, in one line."""
Answers = Generator[tuple[str, Answer], None, None]
Runner = Callable[[Mapping[str, Case]], Answers]
"""From cases by key to their answers, each with its key, as they become known."""


def attempt(case: Case) -> Answer:
    """Simulate a case."""
    try:
        return evaluate(case)
    except (ValueError, OSError) as error:
        return one_line(error)


def here(cases: Mapping[str, Case]) -> Answers:
    """Simulate one case after the other in this process."""
    for key, case in cases.items():
        yield key, attempt(case)


def over_cores(jobs: int) -> Runner:
    """Return what simulates so many cases at a time: a single one here, more in processes of their own."""

    def run(cases: Mapping[str, Case]) -> Answers:
        processes = min(jobs, len(cases))
        return here(cases) if processes <= 1 else _in_processes(cases, processes)

    return run


def _in_processes(cases: Mapping[str, Case], jobs: int) -> Answers:
    _compile(next(iter(cases.values())))
    pool = ProcessPoolExecutor(jobs, get_context("spawn"), initializer=_end_quietly)
    try:
        futures = {pool.submit(attempt, case): key for key, case in cases.items()}
        for future in as_completed(futures):
            yield futures[future], future.result()
    except BrokenProcessPool as error:
        raise ChildProcessError(
            "a process of the sweep has ended, perhaps for want of memory; give fewer --jobs to go on"
        ) from error
    except BaseException:
        for child in active_children():
            child.terminate()
        raise
    finally:
        pool.shutdown(cancel_futures=True)


def _compile(case: Case) -> None:
    """Fill the cache of compiled functions if it is empty, once for all processes."""
    if not any(Path(cache_folder()).iterdir()):
        attempt(replace(case, limit=1))


def _end_quietly() -> None:
    """Let Ctrl-C end this process without a word: the one that started it says what there is to say."""
    signal(SIGINT, SIG_DFL)
