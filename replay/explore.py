"""`replay explore`: a run, a sweep or a trace in the browser, simulated anew as one changes it."""

from importlib.util import find_spec
from pathlib import Path

import click

from replay.completion import complete_policy, complete_table
from replay.output import say, warn
from replay.replay_options import announce_compilation
from replay.report import SLO_HELP
from replay.trace_path import TRACE

TRACE_HELP = "Trace that RUN or SWEEP was made of, if it is not found by its name and hash."
POLICY_HELP = "Further policy to offer, FILE.py:CLASS or A+B; of a TRACE, the first begins; repeatable."
TABLE_HELP = "Further cost table to offer, as a folder or file; of a TRACE, the first begins; repeatable."
HOST_HELP = "Address to listen on."
PORT_HELP = "Port to listen on, 0 for any that is free."
MISSING_EXTRA = "replay explore needs dash, which is not installed; pip install 'replay[explore]'"


@click.command(short_help="A run, sweep or trace in the browser, simulated anew at once.")
@click.argument("what", metavar="RUN|SWEEP|TRACE", type=TRACE)
@click.option("--trace", type=TRACE, metavar="FILE", help=TRACE_HELP)
@click.option(
    "--policy", "policies", multiple=True, metavar="P", shell_complete=complete_policy, help=POLICY_HELP
)
@click.option(
    "--table", "tables", multiple=True, metavar="NAME|FILE", shell_complete=complete_table, help=TABLE_HELP
)
@click.option("--slo", "slos", multiple=True, metavar="LATENCY=S", help=SLO_HELP)
@click.option("--host", default="127.0.0.1", show_default=True, metavar="H", help=HOST_HELP)
@click.option(
    "--port", type=click.IntRange(0, 65535), default=8050, show_default=True, metavar="N", help=PORT_HELP
)
@click.option("--open", "opens", is_flag=True, help="Open the page in the browser.")
def cli(
    what: Path,
    trace: Path | None,
    policies: tuple[str, ...],
    tables: tuple[str, ...],
    slos: tuple[str, ...],
    host: str,
    port: int,
    opens: bool,
) -> None:
    """Serve the figures of a run, a sweep or a trace to the browser of this machine, until Ctrl-C.

    What is changed in the page is simulated anew and drawn beside what was there. docs/explore.md tells more.
    """
    if find_spec("dash") is None:
        raise ValueError(MISSING_EXTRA)
    import webbrowser

    from replay.explore_app import make_app, page_script
    from replay.explore_offer import offer
    from replay.explore_places import Places
    from replay.explore_server import guard, is_loopback, server_of
    from replay.explore_subject import open_subject
    from sim.slo import parse_slos

    offered = offer(policies, tables)
    places = Places(trace, (what, what.parent), tables)
    announce_compilation()
    subject = open_subject(what, places, offered, parse_slos(slos), next(iter(policies), "immediate"))
    app = make_app(subject)
    guard(app, host, page_script())
    with server_of(app, host, port) as server:
        if not is_loopback(host):
            warn(f"whoever reaches {host} sees this page and makes this machine simulate")
        address = f"http://{f'[{host}]' if ':' in host else host}:{server.port}/"
        click.echo(address)
        say("Ctrl-C ends it.")
        if opens:
            webbrowser.open(address)
        server.serve_forever()
