"""Where the replays of a sweep run: here, over the cores, or on a Ray cluster; the results are the same."""

import os
from collections.abc import Callable, Generator, Mapping
from concurrent.futures import ProcessPoolExecutor, as_completed
from concurrent.futures.process import BrokenProcessPool
from dataclasses import replace
from importlib import import_module
from multiprocessing import active_children, get_context
from pathlib import Path
from signal import SIG_DFL, SIGINT, signal

from replay.errors import one_line
from sim.compiled import cache_folder
from sim.summary import Summary
from sim.sweep import Case, evaluate
from sim.sweep_key import inputs_of, key_of

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


def on_ray(cases: Mapping[str, Case]) -> Answers:
    """Simulate the cases on the Ray cluster at RAY_ADDRESS, on one started here if that is not set.

    Raises:
        ChildProcessError: The cluster cannot be reached, or one of its processes has ended.
        ValueError: Ray is not installed.
    """
    try:
        ray = import_module("ray")
    except ImportError as error:
        raise ValueError("--on ray needs Ray, which is not installed; pip install 'replay[ray]'") from error
    try:
        ray.init(log_to_driver=False)
    except Exception as error:  # a start that takes too long is no narrower one
        raise ChildProcessError(f"Ray does not start: {one_line(error)}") from error
    try:
        there = ray.remote(attempt_there)
        keys = {there.remote(case, key, str(Path.cwd())): key for key, case in cases.items()}
        while keys:
            for answered in ray.wait(list(keys))[0]:
                yield keys.pop(answered), ray.get(answered)
    except ray.exceptions.RayError as error:
        raise ChildProcessError(f"Ray: {one_line(error)}; the same command goes on") from error
    finally:
        ray.shutdown()


def attempt_there(case: Case, key: str, folder: str) -> Answer:
    """Simulate a case on a machine that should have the same files at the same places as the one asking."""
    try:
        os.chdir(folder)
        if key_of(inputs_of(case)) != key:
            return "a node of the Ray cluster has another trace, table, policy or version of replay"
    except (ValueError, OSError) as error:
        return f"on a node of the Ray cluster: {one_line(error)}"
    return attempt(case)


def _compile(case: Case) -> None:
    """Fill the cache of compiled functions if it is empty, once for all processes."""
    if not any(Path(cache_folder()).iterdir()):
        attempt(replace(case, limit=1))


def _end_quietly() -> None:
    """Let Ctrl-C end this process without a word: the one that started it says what there is to say."""
    signal(SIGINT, SIG_DFL)
