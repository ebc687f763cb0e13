"""`replay report`: what the page says, what it hides from nobody, and what it never runs."""

import base64
import hashlib
import json
import re
import sys
from dataclasses import replace
from html.parser import HTMLParser
from pathlib import Path
from typing import Any

import click
import numpy as np
import pytest
from click.testing import CliRunner, Result
from large_run import large_run
from toy_run import META, toy_run

from replay.main import main
from replay.report import cli
from sim.report_figure import log_axis
from sim.report_guards import GUARDS, judge
from sim.report_runs import names_of
from sim.slo import Attainment, Slo, attainment, parse_slos
from traces.record import EnergySplit, Meta, ReplicaUse, Run
from traces.record_files import write_run

ROOT = Path(__file__).parents[1]
NASTY = '<script>alert("x")</script><img src=x onerror=alert(1)></title>'


class Page(HTMLParser):
    """What a browser would find in a page: its tags, its text outside of scripts, and its scripts."""

    def __init__(self, path: Path) -> None:
        super().__init__()
        self.tags: list[tuple[str, dict[str, str | None]]] = []
        self.scripts: list[str] = []
        self.text = ""
        self._inside = ""
        self.bytes = path.stat().st_size
        self.feed(path.read_text(encoding="utf-8"))
        self.figures: dict[str, Any] = json.loads(self.scripts[0])

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        self.tags.append((tag, dict(attrs)))
        self._inside = tag if tag in ("script", "style") else ""
        if tag == "script":
            self.scripts.append("")

    def handle_endtag(self, tag: str) -> None:
        if tag == self._inside:
            self._inside = ""
        self.text += " "

    def handle_data(self, data: str) -> None:
        if self._inside == "script":
            self.scripts[-1] += data
        elif not self._inside:
            self.text += data


def report(folder: Path, *runs: Run, options: tuple[str, ...] = ()) -> Page:
    """Return the page of runs whose records are written into `folder`."""
    for number, run in enumerate(runs):
        write_run(run, folder / f"run{number}")
    result = invoke(folder, len(runs), *options)
    assert result.exit_code == 0, result.output
    return Page(folder / "report.html")


def invoke(folder: Path, runs: int, *options: str) -> Result:
    folders = [str(folder / f"run{number}") for number in range(runs)]
    return CliRunner().invoke(main, ["report", *folders, "--out", str(folder / "report.html"), *options])


def shown(page: Page) -> str:
    return re.sub(r"\s+", " ", page.text)


def test_a_page_has_the_numbers_and_every_figure_that_the_record_has_data_for(tmp_path: Path) -> None:
    page = report(tmp_path, toy_run())
    assert list(page.figures) == ["split", "time", "phases", "latency", "tokens"]
    for number in ("2.400 kJ", "800.0 J", "240.0 W", "toy: immediate", "3 of 4"):
        assert number in shown(page)
    titles = [axis["title"]["text"] for axis in page.figures["time"]["layout"].values() if "title" in axis]
    assert "power, W" in titles
    assert "energy, kJ" in titles


def test_other_runs_are_said_by_how_far_they_are_from_the_first(tmp_path: Path) -> None:
    half = EnergySplit(250.0, 750.0, 200.0)
    other = toy_run(
        policy="other", energy=half, counter_j=[0.0, 600.0, 1200.0], energy_j=[300, 500, np.nan, 200]
    )
    page = report(tmp_path, toy_run(), other)
    assert "1.200 kJ −50.0 %" in shown(page)
    assert "immediate against other" in shown(page)


def test_a_run_that_broke_a_guard_is_marked_loudly(tmp_path: Path) -> None:
    broken = toy_run(energy_valid=False, invalid_reasons=("guard 12: the counter lies", "the engine died"))
    page = report(tmp_path, broken)
    assert "immediate: NOT VALID" in shown(page)
    assert "guard 12: the counter lies" in shown(page)
    assert "the engine died" in shown(page)
    assert any(attributes.get("class") == "alarm" for tag, attributes in page.tags if tag == "section")


def test_a_record_that_calls_itself_valid_is_checked_again(tmp_path: Path) -> None:
    page = report(tmp_path, toy_run(counter_j=[0.0, 1200.0, 9999.0]))
    assert "immediate: NOT VALID" in shown(page)
    assert "guard 7: prefill + decode + idle = 2400 J, but the counter says 9999 J" in shown(page)


def test_a_run_of_an_assumed_table_is_said_to_be_not_measured(tmp_path: Path) -> None:
    assert "energy ASSUMED, not measured" in shown(report(tmp_path, toy_run(energy_source="assumed")))


def test_text_of_a_record_is_shown_letter_by_letter_and_never_run(tmp_path: Path) -> None:
    facts = dict.fromkeys(("trace_name", "trace_source", "policy", "gpu", "table"), NASTY)
    options = {"engine_options": {NASTY: NASTY, "model": NASTY}, "policy_options": {"model": NASTY}}
    run = toy_run(**facts, **options, notes=(NASTY,), energy_valid=False, invalid_reasons=(NASTY,))
    page = report(tmp_path, run, replace(run, meta=replace(run.meta, kind="twin")))
    assert page.text.count(NASTY) > 10
    assert [tag for tag, _ in page.tags if tag == "script"] == ["script"] * 3
    assert not [tag for tag, attributes in page.tags if tag == "img" or "onerror" in attributes]
    assert not re.search("<script", json.dumps([trace["name"] for trace in page.figures["time"]["data"]]))


def test_the_page_asks_nobody_for_anything_and_runs_only_its_own_scripts(tmp_path: Path) -> None:
    page = report(tmp_path, toy_run())
    assert not [tag for tag, attributes in page.tags if attributes.keys() & {"src", "href", "srcset", "data"}]
    (policy,) = [
        attributes["content"]
        for tag, attributes in page.tags
        if tag == "meta" and attributes.get("http-equiv") == "Content-Security-Policy"
    ]
    assert policy is not None
    assert policy.startswith("default-src 'none';")
    for script in page.scripts[1:]:
        digest = base64.b64encode(hashlib.sha256(script.encode()).digest()).decode()
        assert f"'sha256-{digest}'" in policy


def test_nineteen_thousand_requests_are_sampled_the_page_says_so_and_is_small(tmp_path: Path) -> None:
    page = report(tmp_path, large_run(19_000))
    assert page.bytes < 10e6
    assert "Of immediate, 1,500 of 19,000 requests are drawn." in shown(page)
    assert "down to 0.2 s" in shown(page)
    assert "Lines are drawn through 500 requests where there are more." in shown(page)


def test_a_small_run_is_drawn_whole_and_nothing_is_said_of_samples(tmp_path: Path) -> None:
    page = report(tmp_path, toy_run())
    assert "are drawn" not in shown(page)


def test_limits_are_drawn_and_judged(tmp_path: Path) -> None:
    page = report(tmp_path, toy_run(), options=("--slo", "ttft=1", "--slo", "tpot_p99=2"))
    assert "TTFT ≤ 1 s 50.00 % of requests" in shown(page)
    assert "goodput 0.200 /s 50.00 % keep all limits of each request" in shown(page)
    assert "TPOT p99 ≤ 2 s kept" in shown(page)
    assert [shape["x0"] for shape in page.figures["latency"]["layout"]["shapes"]] == [1.0, 2.0]


def test_a_request_keeps_a_limit_only_if_it_was_served() -> None:
    run = toy_run()  # TTFTs of 1, 2 and 0.25 s; TPOTs of 0.5 and 1 s; one failed, one has a single token
    assert attainment(run, Slo("ttft", None, 1.0)) == Attainment(0.5, None, False)
    assert attainment(run, Slo("ttft", None, 2.0)).fraction == 0.75
    assert attainment(run, Slo("tpot", None, 0.5)).fraction == 0.5
    assert attainment(run, Slo("ttft", 50, 1.0)) == Attainment(0.5, 1.0, True)
    assert not attainment(run, Slo("e2e", 99, 5.0)).is_kept


@pytest.mark.parametrize(
    "text", ["ttft", "ttft=x", "ttft=0", "ttft=-1", "latency=2", "ttft_p101=2", "ttft=inf"]
)
def test_a_limit_that_is_none_is_refused_in_one_line(text: str, tmp_path: Path) -> None:
    write_run(toy_run(), tmp_path / "run0")
    result = invoke(tmp_path, 1, "--slo", text)
    assert result.exit_code == 2
    assert f"got {text!r}" in result.output
    assert len(result.output.splitlines()) == 1
    assert not (tmp_path / "report.html").exists()


def test_limits_are_written_as_latency_or_as_percentile() -> None:
    assert parse_slos(["ttft=2", "tpot_p99=0.05"]) == (Slo("ttft", None, 2.0), Slo("tpot", 99.0, 0.05))


def test_a_page_is_not_replaced_unless_told_and_is_the_same_when_made_again(tmp_path: Path) -> None:
    report(tmp_path, toy_run())
    before = (tmp_path / "report.html").read_bytes()
    again = invoke(tmp_path, 1)
    assert again.exit_code == 2
    assert "--overwrite" in again.output
    assert invoke(tmp_path, 1, "--overwrite").exit_code == 0
    assert (tmp_path / "report.html").read_bytes() == before


def test_a_run_without_energy_keeps_its_latencies(tmp_path: Path) -> None:
    unmetered = toy_run(
        energy=None, energy_j=[np.nan] * 4, counter_s=[], counter_j=[], energy_source="none", gpus=0
    )
    page = report(tmp_path, unmetered)
    assert list(page.figures) == ["time", "latency"]
    assert "energy not metered" in shown(page)
    assert "NOT VALID" not in shown(page)


def test_several_replicas_have_a_figure_of_their_own(tmp_path: Path) -> None:
    uses = (ReplicaUse(2, 6.0, 4.0, 1200.0, 200.0, 50.0), ReplicaUse(1, 4.0, 6.0, 800.0, 200.0, 50.0))
    page = report(tmp_path, toy_run(replicas=uses, gpus=2))
    bars = {(bar["name"], bar["xaxis"]): bar["x"] for bar in page.figures["replicas"]["data"]}
    assert bars["busy", "x"] == [60.0, 40.0]
    assert bars["idle", "x2"] == [0.2, 0.2]
    assert "replicas.1.busy_s 4" in shown(page)


def test_what_is_missing_beside_the_program_is_said_in_one_line(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    write_run(toy_run(), tmp_path / "run0")
    monkeypatch.setitem(sys.modules, "plotly", None)
    monkeypatch.setitem(sys.modules, "plotly.offline", None)
    result = invoke(tmp_path, 1)
    assert result.exit_code == 2
    assert "pip install 'replay[report]'" in result.output


def test_a_folder_that_holds_no_run_is_refused(tmp_path: Path) -> None:
    result = CliRunner().invoke(main, ["report", str(tmp_path), "--out", str(tmp_path / "r.html")])
    assert result.exit_code == 2
    assert len(result.output.splitlines()) == 1


def test_every_guard_is_in_the_page_in_the_words_of_the_documentation() -> None:
    text = (ROOT / "docs" / "metrics.md").read_text()
    listed = re.findall(r"^\| (\d+) \| (.*) \|$", text, re.MULTILINE)
    assert listed == [(str(number), claim) for number, (claim, _) in enumerate(GUARDS, 1)]


def test_a_guard_holds_fails_or_does_not_apply() -> None:
    simulated = {one.number: one.verdict for one in judge(toy_run())}
    assert {simulated[number] for number in range(1, 10)} == {"holds"}
    assert {simulated[number] for number in range(10, 15)} == {"does not apply"}
    measured = judge(toy_run(kind="measured", energy_source="nvml", out_of_range_fraction=None))
    assert [one.verdict for one in measured][8:] == ["does not apply"] + ["holds"] * 5
    unchecked = judge(toy_run(energy_valid=False))
    assert unchecked[-1].reasons == ("its guards were not checked",)


@pytest.mark.parametrize(
    ("changes", "names"),
    [
        ([{"policy": "a"}, {"policy": "b"}], ["a", "b"]),
        ([{"kind": "simulated"}, {"kind": "measured"}], ["immediate, simulated", "immediate, measured"]),
        (
            [{"policy_options": {"window_s": 1.0, "n": 1}}, {"policy_options": {"window_s": 2.0, "n": 1}}],
            ["immediate (window_s=1)", "immediate (window_s=2)"],
        ),
        ([{"trace_name": "x"}, {"trace_name": "y"}], ["x, immediate", "y, immediate"]),
        ([{}, {}], ["folder", "other"]),
    ],
)
def test_runs_are_named_by_what_they_differ_in(changes: list[dict[str, Any]], names: list[str]) -> None:
    metas: list[Meta] = [replace(META, **change) for change in changes]
    assert names_of(metas, [Path("/runs/folder"), Path("/runs/other")]) == names


def test_runs_that_differ_in_nothing_are_numbered() -> None:
    folders = [Path("/one/folder"), Path("/other/folder")]
    assert names_of([META, META], folders) == ["one/folder", "other/folder"]
    assert names_of([META, META], folders[:1] * 2) == ["1: folder", "2: folder"]


def test_a_logarithmic_axis_has_round_ticks_around_its_values() -> None:
    axis = log_axis("TTFT, s", [np.array([0.0, 0.03, np.nan, 4.0])])
    ticks = dict(zip(axis["tickvals"], axis["ticktext"], strict=True))
    assert ticks[0.02] == "0.02"
    assert ticks[5.0] == "5"
    assert min(ticks) <= 0.03
    assert max(ticks) >= 4.0
    assert "range" not in axis
    assert log_axis("TTFT, s", [np.array([1.0, 1.0 + 1e-9])])["range"] == pytest.approx([-0.5, 0.5])


def test_the_page_of_the_command_names_its_options() -> None:
    page = (ROOT / "docs" / "report.md").read_text()
    options = [option for option in cli.params if isinstance(option, click.Option)]
    assert [option.opts[0] for option in options if f"`{option.opts[0]}" not in page] == []
