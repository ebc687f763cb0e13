"""The scheduler of a twin; imported by the engine's process only."""

from typing import Any

from backends.vllm_scheduler import RecordingScheduler


class TwinScheduler(RecordingScheduler):
    """Decides and records as its parent, and tells the pretend GPU what was recorded of the step."""

    def schedule(self, *args: Any, **kwargs: Any) -> Any:
        """Return the parent's decision, with the row of its step log as `replay_row`."""
        output = super().schedule(*args, **kwargs)
        output.replay_row = self._open_steps[id(output)]
        return output
