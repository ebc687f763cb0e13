"""What this machine can do for a live replay, looked at without changing anything."""

import importlib.metadata
import importlib.util
import subprocess
import sys
import time
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Literal

import numpy as np

from backends.host_energy import POWERCAP, domains
from backends.host_pace import processor_times_s
from backends.nvml import Gpu, MeterError, open_gpus
from sim.metering import COUNTER_TICK_S
from sim.table_files import load_table, shipped

WATCH_S = 1.0
"""How long the energy counters are watched: ten ticks."""
IMPORT_S = 120.0
UNEVEN = 1.25
"""How much longer a loop may take on the slowest processor than on the quickest."""

EXTRAS = (
    ("aiohttp", "openai", "`--backend openai`"),
    ("scipy", "calibrate", "`replay calibrate`"),
    ("matplotlib", "plot", "pictures"),
)


@dataclass(frozen=True, slots=True)
class Finding:
    """One thing that was looked at.

    Attributes:
        subject: What.
        state: `ok`; `missing`, so that something cannot be done; `warning`, so that it is to be doubted.
        finding: How it is.
        advice: What to do, None if nothing.
    """

    subject: str
    state: Literal["ok", "missing", "warning"]
    finding: str
    advice: str | None = None


def examine(powercap: Path = POWERCAP) -> Iterator[Finding]:
    """Yield what was found; takes a second a machine with GPUs, and what vLLM's import takes."""
    yield from _gpus()
    yield from _processors(processor_times_s())
    yield _vllm()
    for package, extra, use in EXTRAS:
        if importlib.util.find_spec(package) is None:
            advice = f"pip install 'replay[{extra}]'"
            yield Finding(package, "missing", f"not installed: no {use}", advice)
        else:
            yield Finding(package, "ok", importlib.metadata.version(package))
    yield from _host_meters(powercap)


def _gpus() -> Iterator[Finding]:
    try:
        with open_gpus() as gpus:
            facts = [gpu.facts() for gpu in gpus]
            counters = _watch_counters(gpus)
            powers = [_power(f"GPU {index} power", gpu) for index, gpu in enumerate(gpus)]
    except MeterError as error:
        yield Finding("GPU", "missing", str(error), "simulate, or measure on a host with an NVIDIA GPU")
        return
    if not facts:
        yield Finding(
            "GPU", "missing", "NVML knows of none", "simulate, or measure on a host with an NVIDIA GPU"
        )
        return
    yield Finding("driver", "ok", facts[0].driver)
    for index, (fact, counter, power) in enumerate(zip(facts, counters, powers, strict=True)):
        subject = f"GPU {index}"
        yield Finding(subject, "ok", fact.name)
        yield counter
        yield power
        yield _limit(f"{subject} power limit", fact.power_limit_w)
        yield _mig(f"{subject} MIG", fact.mig)
        yield _processes(f"{subject} processes", fact.process_ids)
        yield _tables(f"{subject} tables", fact.name)


def _watch_counters(gpus: tuple[Gpu, ...]) -> list[Finding]:
    """Return the tick of each GPU's energy counter, and what reading it takes."""
    ticks: list[list[float]] = [[] for _ in gpus]
    last_j: list[float | None] = [None] * len(gpus)
    reads_s: list[float] = []
    refusals: dict[int, str] = {}
    end_s = time.monotonic() + WATCH_S if gpus else 0.0
    while time.monotonic() < end_s and len(refusals) < len(gpus):
        for index, gpu in enumerate(gpus):
            if index in refusals:
                continue
            begin_s = time.monotonic()
            try:
                energy_j = gpu.energy_j()
            except MeterError as error:
                refusals[index] = str(error)
                continue
            now_s = time.monotonic()
            reads_s.append(now_s - begin_s)
            if last_j[index] not in (None, energy_j):
                ticks[index].append(now_s)
            last_j[index] = energy_j
        time.sleep(0.001)
    return [
        _counter(f"GPU {index} energy counter", ticks[index], reads_s, refusals.get(index))
        for index in range(len(gpus))
    ]


def _counter(subject: str, ticks_s: list[float], reads_s: list[float], refusal: str | None) -> Finding:
    if refusal is not None:
        advice = "meter a GPU of the Volta generation or later"
        return Finding(subject, "missing", refusal, advice)
    read = f"a read takes {1e6 * float(np.median(reads_s)):.0f} µs"
    if len(ticks_s) < 3:
        finding = f"ticked {len(ticks_s)} times in {WATCH_S:g} s; {read}"
        return Finding(subject, "warning", finding, "do not trust energies metered here")
    tick_s = float(np.median(np.diff(ticks_s)))
    if tick_s > 1.5 * COUNTER_TICK_S:
        advice = f"replay for longer than {50 * tick_s:.0f} s, so that a tick is little"
        return Finding(subject, "warning", f"ticks every {1e3 * tick_s:.0f} ms; {read}", advice)
    return Finding(subject, "ok", f"ticks every {1e3 * tick_s:.0f} ms; {read}")


def _power(subject: str, gpu: Gpu) -> Finding:
    try:
        return Finding(subject, "ok", f"{gpu.power_w():.0f} W now")
    except MeterError as error:
        return Finding(subject, "missing", str(error))


def _limit(subject: str, limit_w: float | None) -> Finding:
    if limit_w is None:
        return Finding(subject, "warning", "NVML does not say", "expect guard 6 to be left out")
    return Finding(subject, "ok", f"{limit_w:.0f} W")


def _mig(subject: str, mig: bool) -> Finding:
    if mig:
        finding = "on: an instance reports its whole GPU's energy"
        return Finding(subject, "warning", finding, "turn MIG off to measure")
    return Finding(subject, "ok", "off")


def _processes(subject: str, process_ids: tuple[int, ...]) -> Finding:
    if not process_ids:
        return Finding(subject, "ok", "nobody computes here")
    finding = f"{', '.join(map(str, process_ids))} compute here, and their energy would be counted"
    return Finding(subject, "warning", finding, "end them, unless they are the server of `--backend openai`")


def _tables(subject: str, gpu: str) -> Finding:
    names = [name for name in shipped() if load_table(name).gpu == gpu]
    if names:
        return Finding(subject, "ok", ", ".join(names))
    finding = f"no cost table that ships was measured on {gpu}"
    return Finding(subject, "warning", finding, "measure one: `replay calibrate` (docs/calibrate.md)")


def _processors(times_s: dict[int, float]) -> Iterator[Finding]:
    if not times_s:
        return
    quickest_ms, slowest_ms = 1e3 * min(times_s.values()), 1e3 * max(times_s.values())
    quickest = f"a loop takes {quickest_ms:.2f} ms on the quickest of {len(times_s)}"
    finding = f"{quickest}, {slowest_ms:.2f} on the slowest"
    if slowest_ms <= UNEVEN * quickest_ms:
        yield Finding("processors", "ok", finding)
        return
    advice = (
        "give the engine cores of its own; steps that wait for the host vary by as much (docs/accuracy.md)"
    )
    yield Finding("processors", "warning", finding, advice)


def _vllm() -> Finding:
    """Import vLLM in a process of its own, which takes a while, where it is installed."""
    if importlib.util.find_spec("vllm") is None:
        advice = "pip install 'replay[vllm]'"
        return Finding("vLLM", "missing", "not installed: no `--backend vllm`, no `replay calibrate`", advice)
    command = [sys.executable, "-c", "import vllm; print(vllm.__version__)"]
    try:
        done = subprocess.run(command, capture_output=True, text=True, timeout=IMPORT_S, check=False)
    except subprocess.TimeoutExpired:
        return Finding("vLLM", "warning", f"took more than {IMPORT_S:g} s to import", "try again")
    if done.returncode:
        words = done.stderr.strip().splitlines() or ["it said nothing"]
        return Finding("vLLM", "missing", f"cannot be imported: {words[-1]}", "see its installation notes")
    return Finding("vLLM", "ok", done.stdout.split()[-1])


def _host_meters(powercap: Path) -> Iterator[Finding]:
    found = domains(powercap)
    for kind, subject in (("cpu", "processors' energy"), ("dram", "memory's energy")):
        mine = [domain for domain in found if domain.kind == kind]
        if not mine:
            yield Finding(subject, "missing", f"no such counter in {powercap}; virtual machines show none")
            continue
        try:
            for domain in mine:
                domain.energy_uj()
        except OSError as error:
            finding = (
                f"not readable here: {error.strerror}; by the administrator only since 2020 (CVE-2020-8694)"
            )
            advice = f"chmod a+r {powercap}/intel-rapl:*/energy_uj as administrator, or go without"
            yield Finding(subject, "missing", finding, advice)
        else:
            yield Finding(subject, "ok", f"{len(mine)} counters")
