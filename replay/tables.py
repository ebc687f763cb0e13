"""`replay tables`: which cost tables there are."""

import click


@click.command()
@click.argument("names", nargs=-1)
def cli(names: tuple[str, ...]) -> None:
    """List the cost tables that ship, or show NAMES (or folders) in full."""
    from sim.table_files import DEFAULT, load_table, shipped

    for name in names or tuple(shipped()):
        table = load_table(name)
        default = ", the default" if name == DEFAULT else ""
        click.echo(f"{table.name} ({table.source}{default})")
        click.echo(f"  {table.measured_on}")
        if names:
            _show(table)


def _show(table: object) -> None:
    import json

    from sim.table import CostTable

    assert isinstance(table, CostTable)
    coefficients = table.coefficients
    click.echo(f"  power limit {table.power_limit_w:.0f} W a GPU, held at {coefficients.cap_w:.0f} W in all")
    click.echo(f"  idle {coefficients.idle_w:.0f} W loaded, {table.bare_idle_w:.0f} W bare")
    prefill, seqs, kv, pairs = coefficients.limits
    click.echo(
        f"  measured up to {prefill:.0f} prefill tokens, {seqs:.0f} sequences, {kv:.0f} KV tokens, "
        f"{pairs:.3g} query-key pairs in a step"
    )
    click.echo(f"  engine: {json.dumps(table.engine)}")
    for kind, errors in table.meta.get("errors", {}).items():
        click.echo(
            f"  {kind:8} {errors['windows']:4.0f} windows: seconds {100 * errors['seconds_rms']:.2f} % rms, "
            f"joules {100 * errors['joules_rms']:.2f} % rms"
        )
