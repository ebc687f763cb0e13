"""The figure over time: power, energy, waiting, batch and KV cache of all runs on one axis."""

from collections.abc import Sequence
from dataclasses import dataclass

from sim.report_figure import Figure, Trace, line_of, scaled, text_of
from sim.report_rows import FRAME_PX, rows_layout, time_line, zoom_text
from sim.report_runs import Reported
from sim.report_time import Series
from traces.trace import Floats

ROW_PX = 150


@dataclass(frozen=True, slots=True)
class Row:
    """A row of the figure.

    Attributes:
        title: Of its axis, with the unit.
        text: What its values mean.
        hovers: How a value of a solid line is written, and one of a dotted line.
        solid: A line a run, None where the record does not tell.
        dotted: A further line a run.
        height: Relative to other rows.
    """

    title: str
    text: str
    hovers: tuple[str, str]
    solid: list[Floats | None]
    dotted: list[Floats | None]
    height: float = 1.0


def over_time(runs: Sequence[Reported], curves: Sequence[Series], width_s: float) -> Figure:
    """Return all runs over time, a line a run in each row.

    Args:
        runs: At least one.
        curves: Of each run.
        width_s: Length of the stretches of `curves`.
    """
    rows = [row for row in _rows(curves) if any(values is not None for values in row.solid)]
    longest_s = max(one.run.meta.makespan_s for one in runs)
    data: list[Trace] = []
    for place, row in enumerate(rows):
        for number, (one, curve) in enumerate(zip(runs, curves, strict=True)):
            both = (row.solid[number], True), (row.dotted[number], False)
            for (values, is_solid), hover in zip(both, row.hovers, strict=True):
                if values is None:
                    continue
                line = time_line(curve, longest_s, values, place)
                look = line_of(number)
                line["line"] |= look if is_solid else {**look, "dash": "dot", "width": 1.4}
                group = {"name": text_of(one.name), "legendgroup": str(number)}
                data.append({**line, **group, "showlegend": False, "hovertemplate": hover})
    for number in range(len(runs)):
        next(line for line in data if line["legendgroup"] == str(number))["showlegend"] = True
    layout = rows_layout([row.title for row in rows], [row.height for row in rows], longest_s, width_s)
    texts = " ".join(row.text for row in rows)
    caption = f"{texts} {zoom_text(width_s)} A click on a name hides the run."
    height_px = round(FRAME_PX + ROW_PX * sum(row.height for row in rows))
    return Figure("time", "Over time", caption, data, layout, height_px)


def _rows(curves: Sequence[Series]) -> list[Row]:
    nothing: list[Floats | None] = [None] * len(curves)
    powers, energies = [curve.power_w for curve in curves], [curve.energy_j for curve in curves]
    per_j, unit = scaled(max((energy_j[-1] for energy_j in energies if energy_j is not None), default=0), "J")
    holds = any(curve.held.max() > 0 for curve in curves)
    whole = any(curve.batch is not None for curve in curves)
    seen = "where its steps are known"
    return [
        Row("power, W", "Power: of all GPUs.", ("%{y:.1f} W", ""), powers, nothing, height=1.6),
        Row(
            f"energy, {unit}",
            "Energy: since time 0.",
            (f"%{{y:,.4r}} {unit}", ""),
            [None if energy_j is None else energy_j / per_j for energy_j in energies],
            nothing,
        ),
        Row(
            "requests waiting",
            "Waiting: requests that came and have no first token yet"
            + ("; dotted, those that the policy holds." if holds else "."),
            ("%{y:.1f} waiting", "%{y:.1f} held"),
            [curve.held + curve.queued for curve in curves],
            [curve.held if holds else None for curve in curves],
        ),
        Row(
            "requests decoding",
            "Decoding: requests between their first token and their last"
            + (f"; dotted, the engine's whole batch, {seen}." if whole else "."),
            ("%{y:.1f} decoding", "%{y:.1f} in the batch"),
            [curve.decoding for curve in curves],
            [curve.batch for curve in curves],
        ),
        Row(
            "KV cache, %",
            "KV cache: what the tokens of decoding requests take of it"
            + (f"; dotted, all that is taken, {seen}." if whole else "."),
            ("%{y:.2f} % of the KV cache", "%{y:.2f} % of it taken"),
            [_percent(curve.kv_fraction) for curve in curves],
            [_percent(curve.batch_kv_fraction) for curve in curves],
        ),
    ]


def _percent(fraction: Floats | None) -> Floats | None:
    return None if fraction is None else 100 * fraction
