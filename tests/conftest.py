"""Fixtures that tests find by name, and no deadlines: first calls compile."""

from calibration_bench import bench, metered_bench
from chromium import browser
from hypothesis import settings
from scripted_nvml import nvml, nvml_library

__all__ = ["bench", "browser", "metered_bench", "nvml", "nvml_library"]

settings.register_profile("untimed", deadline=None)
settings.load_profile("untimed")
