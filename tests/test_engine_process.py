"""An engine in a process of its own: what it does and how it ends is told, and nothing of it stays."""

import asyncio
import os
import signal
import subprocess
import sys
from collections.abc import Awaitable, Callable
from pathlib import Path
from typing import Any

import pytest
from sleepy_vllm import make_package

from backends import engine_process
from backends.engine_process import EngineProcess


@pytest.fixture
def model(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """Return a model's folder, with a vLLM for child processes."""
    packages, tests = make_package(tmp_path / "packages"), Path(__file__).parent
    monkeypatch.setenv("PYTHONPATH", os.pathsep.join(map(str, (packages, tests, tests.parent))))
    monkeypatch.syspath_prepend(packages)
    folder = tmp_path / "toy"
    folder.mkdir()
    (folder / "config.json").write_text("{}")
    return folder


def engine_of(model: Path, **options: Any) -> EngineProcess:
    return EngineProcess(str(model), {"enable_sleep_mode": True, **options}, model / "steps.bin")


def run(engine: EngineProcess, play: Callable[[EngineProcess], Awaitable[Any]]) -> Any:
    async def playing() -> Any:
        try:
            return await play(engine)
        finally:
            await engine.end()

    return asyncio.run(playing())


def test_it_starts_sleeps_wakes_and_stops_again_and_again(model: Path) -> None:
    async def play(engine: EngineProcess) -> dict[str, Any]:
        facts: dict[str, Any] = {}
        for _ in range(2):
            facts = await engine.start()
            for level in (1, 2):
                await engine.answer()
                await engine.sleep(level)
                await engine.wake(level)
            process = engine._process
            assert process is not None
            await engine.stop()
            assert process.returncode == 0
            assert (model / "told.txt").read_text().splitlines()[-1] == "shutdown"
            with pytest.raises(ProcessLookupError):
                os.killpg(process.pid, 0)
        return facts

    assert run(engine_of(model, max_num_seqs=7), play)["max_num_seqs"] == 7
    told = (model / "told.txt").read_text().splitlines()
    assert told.count("sleep 1") == told.count("sleep 2") == told.count("shutdown") == 2


def test_a_start_that_vllm_refuses_is_one_line(model: Path) -> None:
    with pytest.raises(ValueError, match=r"^vLLM does not know an engine option: .*no_such"):
        run(engine_of(model, no_such=1), EngineProcess.start)


def test_a_refusal_leaves_the_engine_running(model: Path) -> None:
    async def play(engine: EngineProcess) -> None:
        await engine.start()
        with pytest.raises(ValueError, match="Sleep mode is not enabled"):
            await engine.sleep(1)
        await engine.answer()
        await engine.stop()

    run(engine_of(model, enable_sleep_mode=False), play)


def test_a_process_that_dies_is_told(model: Path) -> None:
    async def play(engine: EngineProcess) -> None:
        await engine.start()
        assert engine._process is not None
        engine._process.send_signal(signal.SIGKILL)
        with pytest.raises(ConnectionError, match=r"process ended when told to sleep|process has ended"):
            await engine.sleep(1)
        with pytest.raises(ConnectionError, match=r"process ha[sd] ended.*; its log says more$"):
            await engine.stop()

    run(engine_of(model), play)


def test_an_engine_that_hangs_is_told_and_ended(model: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(engine_process, "STEP_LIMIT_S", 0.2)
    monkeypatch.setenv("SLEEPY_VLLM_HANGS", "1")

    async def play(engine: EngineProcess) -> int:
        await engine.start()
        assert engine._process is not None
        process = engine._process.pid
        with pytest.raises(
            ConnectionError, match=r"^the engine was told to sleep, 0\.2 s ago and has not answer"
        ):
            await engine.sleep(1)
        with pytest.raises(ConnectionError, match=r"^the engine does not stop within 0\.2 s$"):
            await engine.stop()
        return process

    process = run(engine_of(model), play)
    with pytest.raises(ProcessLookupError):
        os.killpg(process, 0)


def test_it_stops_when_whoever_started_it_is_killed(model: Path) -> None:
    start = (
        "import asyncio, os, signal\n"
        "from pathlib import Path\n"
        "from backends.engine_process import EngineProcess\n"
        f"engine = EngineProcess({str(model)!r}, {{}}, Path('steps.bin'))\n"
        "asyncio.run(engine.start())\n"
        "os.kill(os.getpid(), signal.SIGKILL)\n"
    )
    killed = subprocess.run(
        [sys.executable, "-c", start], cwd=Path(__file__).parents[1], check=False, timeout=60
    )
    assert killed.returncode == -signal.SIGKILL
    told = model / "told.txt"
    for _ in range(500):
        if told.read_text().endswith("shutdown\n"):
            return
        asyncio.run(asyncio.sleep(0.02))
    pytest.fail(f"the engine runs on; it was told {told.read_text()!r}")
