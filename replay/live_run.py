"""`replay TRACE --backend vllm`: the same replay on a real engine, metered."""

import asyncio
from typing import TYPE_CHECKING

from replay.late_bar import LateBar
from replay.live_engine import LiveEngine

if TYPE_CHECKING:
    from backends.measured_record import Measured, Replay


def replay_live(what: "Replay", engine: LiveEngine) -> "Measured":
    """Start the engine, replay on it and return what was measured, however the replay ended.

    Raises:
        ValueError: The engine does not start, the GPU cannot be metered, or the policy breaks a rule.
    """
    return asyncio.run(_replay_live(what, engine))


async def _replay_live(what: "Replay", engine: LiveEngine) -> "Measured":
    from backends.measured_run import measure_replay

    async with engine.rig(what.seed) as rig:
        with LateBar(len(what.trace), "replaying") as bar:
            return await measure_replay(what, rig, bar.advance)
