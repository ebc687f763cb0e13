"""A vLLM engine in a process of its own: once that has ended, nothing of it is left on the GPU."""

import asyncio
import json
import os
import signal
import sys
from collections.abc import Mapping
from contextlib import suppress
from pathlib import Path
from typing import IO, Any

from backends.vllm_engine import VllmEngine

START_LIMIT_S = 900.0
STEP_LIMIT_S = 300.0
"""An engine that needs longer to start, or to do one thing, is taken to hang."""

POLL_S, END_LIMIT_S = 0.01, 10.0


class EngineProcess:
    """Starts, sleeps, wakes and stops as often as it is told to.

    It is told by lines on standard input, `[what, argument...]`, and answers each by a line on standard
    output, `{"error": null, "told": ...}`. When standard input closes it stops, and says so.
    """

    def __init__(self, model: str, options: Mapping[str, Any], step_log: Path) -> None:
        """Prepare an engine, as of `VllmEngine`."""
        VllmEngine(model, options, step_log)
        self._arguments = (model, json.dumps(dict(options)), str(step_log))
        self._process: asyncio.subprocess.Process | None = None

    async def start(self) -> dict[str, Any]:
        """Start the process and the engine in it and return the engine options in force.

        Raises:
            ValueError: vLLM does not start.
            ConnectionError: The process has ended, or does not answer.
        """
        root = str(Path(__file__).resolve().parents[1])
        paths = [root, *filter(None, [os.environ.get("PYTHONPATH")])]
        environment = {
            "CUDA_DEVICE_ORDER": "PCI_BUS_ID",
            "VLLM_LOGGING_STREAM": "ext://sys.stderr",
            **os.environ,
            "PYTHONPATH": os.pathsep.join(paths),
        }
        self._process = await asyncio.create_subprocess_exec(
            *(sys.executable, "-m", "backends.engine_process", *self._arguments),
            stdin=asyncio.subprocess.PIPE,
            stdout=asyncio.subprocess.PIPE,
            env=environment,
            start_new_session=True,  # Ctrl-C is for this process, which ends that one
        )
        facts: dict[str, Any] = await self._ask("start", limit_s=START_LIMIT_S)
        return facts

    async def answer(self) -> None:
        """Serve one short request; errors as of `start`."""
        await self._ask("answer")

    async def sleep(self, level: int) -> None:
        """Go to vLLM's sleep level; errors as of `start`."""
        await self._ask("sleep", level)

    async def wake(self, level: int) -> None:
        """Come back from a sleep level; errors as of `start`."""
        await self._ask("wake", level)

    async def ensure_awake(self) -> None:
        """Refuse an engine that sleeps, and miss one that has gone; errors as of `start`."""
        await self._ask("ensure_awake")

    async def stop(self) -> None:
        """Shut down; the process has gone when this returns.

        Raises:
            ConnectionError: It had ended before, or does not end.
        """
        process = self._running()
        assert process.stdout is not None
        _close_input(process)
        try:
            async with asyncio.timeout(STEP_LIMIT_S):
                line = await process.stdout.readline()
                while process.returncode is None:
                    await asyncio.sleep(POLL_S)
        except TimeoutError as error:
            raise ConnectionError(f"the engine does not stop within {STEP_LIMIT_S:g} s") from error
        if not line:
            raise ConnectionError(
                "the engine's process had ended before it was told to stop; its log says more"
            )
        await self.end()

    async def end(self) -> None:
        """End the process and those it has started, whatever they do."""
        process, self._process = self._process, None
        if process is None:
            return
        with suppress(ProcessLookupError):
            os.killpg(process.pid, signal.SIGKILL)  # its session is its own
        _close_input(process)
        with suppress(TimeoutError):
            async with asyncio.timeout(END_LIMIT_S):
                await process.wait()  # until nobody holds its pipes

    async def _ask(self, *command: Any, limit_s: float | None = None) -> Any:
        process, limit_s = self._running(), limit_s or STEP_LIMIT_S
        assert process.stdin is not None
        assert process.stdout is not None
        process.stdin.write(json.dumps(command).encode() + b"\n")
        try:
            line = await asyncio.wait_for(process.stdout.readline(), limit_s)
        except TimeoutError as error:
            raise ConnectionError(
                f"the engine was told to {command[0]}, {limit_s:g} s ago and has not answered"
            ) from error
        if not line:
            raise ConnectionError(f"the engine's process ended when told to {command[0]}; its log says more")
        answer = json.loads(line)
        if answer["error"] is not None:
            raise ValueError(answer["error"])
        return answer["told"]

    def _running(self) -> asyncio.subprocess.Process:
        if self._process is None or self._process.returncode is not None:
            raise ConnectionError("the engine's process has ended; its log says more")
        return self._process


def _close_input(process: asyncio.subprocess.Process) -> None:
    if process.stdin is not None:
        process.stdin.close()


async def serve(engine: VllmEngine, answers: IO[str]) -> None:
    """Do what each line of standard input says until that closes, then stop the engine."""
    commands = asyncio.StreamReader()
    loop = asyncio.get_running_loop()
    # No thread reads: vLLM may fork this process.
    await loop.connect_read_pipe(lambda: asyncio.StreamReaderProtocol(commands), sys.stdin)
    try:
        async for line in commands:
            told, failure = None, None
            try:
                told = await _obey(engine, *json.loads(line))
            except ValueError as error:
                failure = " ".join(str(error).split())
            _tell(answers, told, failure)
    finally:
        engine.stop()
        _tell(answers, "stopped")


def _tell(answers: IO[str], told: Any, failure: str | None = None) -> None:
    with suppress(BrokenPipeError):  # nobody is left to be told
        print(json.dumps({"error": failure, "told": told}), file=answers, flush=True)


async def _obey(engine: VllmEngine, what: str, level: int = 0) -> dict[str, Any] | None:
    match what:
        case "start":
            await engine.start()
            return engine.facts()
        case "answer":
            async for _ in engine.generate("answer", list(range(10, 110)), 8):
                pass
        case "ensure_awake":
            await engine.ensure_awake()
        case "sleep":
            await engine.sleep(level)
        case "wake":
            await engine.wake(level)
        case _:
            raise ValueError(f"no command {what!r}; there are start, answer, sleep, wake and ensure_awake")
    return None


if __name__ == "__main__":
    model, options, step_log = sys.argv[1:]
    answers = os.fdopen(os.dup(1), "w")
    os.dup2(2, 1)  # whatever else is printed is talk
    asyncio.run(serve(VllmEngine(model, json.loads(options), Path(step_log)), answers))
    os._exit(0)  # the interpreter's own end would take vLLM seconds more, the GPU being free
