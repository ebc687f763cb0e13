"""The summary of a run: what `replay` prints."""

from collections.abc import Sequence
from dataclasses import dataclass

from sim import metrics
from sim.slo import Slo
from sim.tally import Tally, tally_of
from traces.record import EnergySource, Meta, Run


@dataclass(frozen=True, slots=True)
class Summary:
    """A run in numbers, simulated or measured; None where there is no such number.

    Attributes:
        total_energy_j: From time 0 to the last completion, idle included; the sum of the next three where
            they are known.
        energy_low_j, energy_high_j: What total_energy_j lies between, with 95 % confidence, of a simulated
            run.
        prefill_energy_j: Steps' energy by their prompt tokens.
        decode_energy_j: Steps' energy by their decoding sequences.
        idle_energy_j: Everything between the steps, requests waiting or not.
        mean_power_w: total_energy_j / makespan_s.
        energy_j_per_request: total_energy_j / served.
        energy_j_per_output_token: total_energy_j / output tokens of the served requests.
        energy_j_per_token: total_energy_j / prompt and output tokens of the served requests.
        cpu_energy_j, dram_energy_j: Of this host's processors and memory, no part of total_energy_j.
        makespan_s: From time 0 to the last completion.
        requests: Offered.
        served: Of these, with all their tokens.
        failed: Of these, given up by the engine.
        ttft_p50_s, ttft_p90_s, ttft_p99_s: Quantiles of the time to first token, from the arrival.
        tpot_p50_s, tpot_p90_s, tpot_p99_s: Quantiles of the time per output token after the first.
        e2e_p50_s, e2e_p90_s, e2e_p99_s: Quantiles of the time from arrival to last token.
        out_of_range_fraction: Steps outside the table's measured range, of all steps; None if measured.
        table: Name of the cost table; None if measured.
        energy_source: `simulated`, `twin`, `assumed`, `nvml` or `none`.
        energy_valid: Whether every guard held.
        invalid_reasons: Which did not.
        attainment_fraction: Requests that keep all limits of each request at once, of those offered; None
            without such limits.
        goodput_rps: These, per second of the makespan.
        carbon_g: Grams of CO2 equivalent of the energy, at the grid's intensity that was given.
        price: Of the energy, at the price that was given, in `currency`.
        currency: Label of the price.
    """

    total_energy_j: float | None
    energy_low_j: float | None
    energy_high_j: float | None
    prefill_energy_j: float | None
    decode_energy_j: float | None
    idle_energy_j: float | None
    mean_power_w: float | None
    energy_j_per_request: float | None
    energy_j_per_output_token: float | None
    energy_j_per_token: float | None
    cpu_energy_j: float | None
    dram_energy_j: float | None
    makespan_s: float
    requests: int
    served: int
    failed: int
    ttft_p50_s: float | None
    ttft_p90_s: float | None
    ttft_p99_s: float | None
    tpot_p50_s: float | None
    tpot_p90_s: float | None
    tpot_p99_s: float | None
    e2e_p50_s: float | None
    e2e_p90_s: float | None
    e2e_p99_s: float | None
    out_of_range_fraction: float | None
    table: str | None
    energy_source: EnergySource
    energy_valid: bool
    invalid_reasons: tuple[str, ...]
    attainment_fraction: float | None = None
    goodput_rps: float | None = None
    carbon_g: float | None = None
    price: float | None = None
    currency: str | None = None


def summarize(run: Run, limits: Sequence[Slo] = ()) -> Summary:
    """Return the summary of `run`, by the definitions of `sim.metrics`.

    Args:
        run: Simulated or measured.
        limits: Of each request, for attainment and goodput.
    """
    tally = tally_of(run.outcomes, run.meta.makespan_s, limits)
    return summary_of(run.meta, run.total_energy_j, tally)


def summary_of(meta: Meta, total_j: float | None, tally: Tally) -> Summary:
    """Return the summary of a run whose outcomes come to `tally`."""
    energy = meta.energy
    low_j, high_j = meta.energy_interval_j or (None, None)
    ttft_s, tpot_s, e2e_s = tally.quantiles(0.50, 0.90, 0.99)
    return Summary(
        total_energy_j=total_j,
        energy_low_j=low_j,
        energy_high_j=high_j,
        prefill_energy_j=None if energy is None else energy.prefill_j,
        decode_energy_j=None if energy is None else energy.decode_j,
        idle_energy_j=None if energy is None else energy.idle_j,
        mean_power_w=metrics.ratio(total_j, meta.makespan_s),
        energy_j_per_request=metrics.ratio(total_j, tally.served),
        energy_j_per_output_token=metrics.ratio(total_j, tally.output_tokens),
        energy_j_per_token=metrics.ratio(total_j, tally.prompt_tokens + tally.output_tokens),
        cpu_energy_j=meta.cpu_j,
        dram_energy_j=meta.dram_j,
        makespan_s=meta.makespan_s,
        requests=meta.requests,
        served=tally.served,
        failed=tally.failed,
        ttft_p50_s=ttft_s[0],
        ttft_p90_s=ttft_s[1],
        ttft_p99_s=ttft_s[2],
        tpot_p50_s=tpot_s[0],
        tpot_p90_s=tpot_s[1],
        tpot_p99_s=tpot_s[2],
        e2e_p50_s=e2e_s[0],
        e2e_p90_s=e2e_s[1],
        e2e_p99_s=e2e_s[2],
        out_of_range_fraction=meta.out_of_range_fraction,
        table=meta.table,
        energy_source=meta.energy_source,
        energy_valid=meta.energy_valid,
        invalid_reasons=meta.invalid_reasons,
        attainment_fraction=metrics.ratio(tally.good, tally.requests),
        goodput_rps=metrics.ratio(tally.good, meta.makespan_s),
        carbon_g=None if meta.footprint is None else meta.footprint.carbon_g,
        price=None if meta.footprint is None else meta.footprint.price,
        currency=None if meta.footprint is None else meta.footprint.currency,
    )
