"""The twin: a real vLLM on a pretend GPU whose steps take the time, and draw the power, of a cost table.

vLLM asks `platform` in each of its processes whether to run on the twin; it does where FOLDER_VARIABLE names
a folder. That folder holds the cost table and what the pretend GPU has drawn.
"""

import os

import numpy as np

FOLDER_VARIABLE = "REPLAY_TWIN"
"""Environment variable that names the twin's folder, and so turns the twin on."""

ENERGY_FILE = "energy.bin"
"""File of the twin's folder: one STRETCH row a step."""

STRETCH = np.dtype([("from_s", "f8"), ("from_j", "f8"), ("to_s", "f8"), ("to_j", "f8")])
"""When a step began and ended on the pretend GPU, in monotonic seconds, and all joules drawn by then."""


def platform() -> str | None:
    """Return the twin's platform if it is on: a plugin of vLLM, entry-point group `vllm.platform_plugins`."""
    return "backends.twin_platform.TwinPlatform" if FOLDER_VARIABLE in os.environ else None
