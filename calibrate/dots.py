"""Dots: the windows of a calibration beside what the fitted model makes of them, for plots."""

from dataclasses import dataclass
from pathlib import Path

from calibrate.fit import Residual
from calibrate.raw import read_parquet
from calibrate.table import read_residuals
from calibrate.windows import Window, windows


@dataclass(frozen=True, slots=True)
class Dot:
    """A measured window and its residual, None if the model was not fitted to it."""

    window: Window
    residual: Residual | None

    @property
    def step_ms(self) -> float:
        """Mean measured time from one output to the next."""
        return 1e3 * self.window.step_s

    @property
    def power_w(self) -> float:
        """Mean measured power."""
        return self.window.power_w

    @property
    def model_step_ms(self) -> float:
        """Mean time from one output to the next by the model, NaN if not fitted."""
        return self.step_ms * (1 + self.seconds_error)

    @property
    def model_power_w(self) -> float:
        """Mean power by the model, NaN if not fitted."""
        return self.power_w * (1 + self.joules_error) / (1 + self.seconds_error)

    @property
    def seconds_error(self) -> float:
        """Relative error of the model's seconds, NaN if not fitted."""
        found = self.residual
        return float("nan") if found is None else found.model_seconds / found.seconds - 1

    @property
    def joules_error(self) -> float:
        """Relative error of the model's joules, NaN if not fitted."""
        found = self.residual
        return float("nan") if found is None else found.model_joules / found.joules - 1


def read_dots(folder: Path) -> list[Dot]:
    """Return all windows of the calibration in a folder.

    Raises:
        ValueError: The folder holds no points, or residuals of other points.
    """
    points_file, residuals_file = folder / "points.parquet", folder / "residuals.parquet"
    for file in (points_file, residuals_file):
        if not file.is_file():
            raise ValueError(f"{file}: not there; a plot needs the points beside the table")
    residuals: dict[str, list[Residual]] = {}
    for residual in read_residuals(residuals_file):
        residuals.setdefault(residual.key, []).append(residual)
    dots = []
    for window in windows(read_parquet(points_file)[0]):
        own = residuals.get(window.point.key)
        dots.append(Dot(window, own.pop(0) if own else None))
    strays = [key for key, left in residuals.items() if left]
    if strays:
        raise ValueError(f"{residuals_file}: {strays[0]} is not in {points_file}; fit again with --fit-only")
    return dots
