"""Fixtures that tests find by name, no deadlines, as first calls compile, and Ctrl-C for who is sent one."""

import signal

from calibration_bench import bench, metered_bench
from chromium import browser
from hypothesis import settings
from scripted_nvml import nvml, nvml_library

__all__ = ["bench", "browser", "metered_bench", "nvml", "nvml_library"]

settings.register_profile("untimed", deadline=None)
settings.load_profile("untimed")

# A shell has what it starts in the background ignore Ctrl-C, and processes inherit that.
if signal.getsignal(signal.SIGINT) is signal.SIG_IGN:
    signal.signal(signal.SIGINT, signal.default_int_handler)
