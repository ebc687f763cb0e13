"""Fixtures that tests find by name."""

from scripted_nvml import nvml, nvml_library

__all__ = ["nvml", "nvml_library"]
