"""`replay explore`: what the page shows of an address, what it takes from a request, and what it refuses."""

import json
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
from click.testing import CliRunner
from explore_page import make_run, make_table, shown, subject_of, text_of
from toy_trace import toy_trace

import replay.api
from replay.explore_app import settle
from replay.explore_choice import SHARED, chosen
from replay.explore_command import command_of
from replay.explore_controls import controls_of
from replay.explore_offer import offer
from replay.explore_page import FIGURES, control_of
from replay.explore_places import Places
from replay.explore_runs import AT_ONCE, Runs
from replay.explore_subject import Subject, open_subject
from replay.main import main
from replay.printing import quantity
from sim.sweep import Case
from traces.parquet import write_trace
from traces.record_files import read_run

TRACE = toy_trace([0.5 * row for row in range(40)], 100, 20)
MINE = """
from pathlib import Path

from sim.immediate import Immediate

Path(__file__).with_suffix(".ran").touch()


class Mine(Immediate):
    pass
"""


@pytest.fixture(scope="module")
def run(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The record of 40 requests under `batch-window`."""
    folder = tmp_path_factory.mktemp("explore")
    return make_run(TRACE, folder, "--policy", "batch-window", "--set", "window_s=2", "--seed", "3")


@pytest.fixture(scope="module")
def subject(run: Path) -> Subject:
    """What the page about it is about."""
    return subject_of(run)


def numbers(page: dict[str, Any]) -> str:
    return text_of(page["numbers"])


def settled(
    subject: Subject, trigger: str | None, search: str = "", **changes: str
) -> tuple[Any, dict[str, str], dict[str, str]]:
    """Return address, options and shared controls after a change; `set_X` is the option X of the policy."""
    base = subject.bases[0].replay()
    texts, options = controls_of(base, {}, subject.offered)
    texts |= {name: text for name, text in changes.items() if name in SHARED}
    own = {name: text for name, (_, text) in options.items()}
    own |= {name.removeprefix("set_"): text for name, text in changes.items() if name.startswith("set_")}
    ids = [{"type": "option", "name": name} for name in own]
    address, fields, _, values = settle(
        subject, trigger, search, [texts[name] for name in SHARED], list(own.values()), ids, []
    )
    shown_options = {}
    for label in fields if isinstance(fields, list) else []:
        _, field = label.children
        shown_options[field.id["name"]] = field.value
    return address, shown_options, dict(zip(SHARED, values, strict=True))


def test_the_page_begins_with_the_run_as_recorded(run: Path, subject: Subject) -> None:
    page = shown(subject)
    total_j = read_run(run).total_energy_j
    assert quantity(total_j, "J") in numbers(page)
    assert page["notice"] == ""
    assert not page["has_no_controls"]
    assert set(page["pictures"]) == {"split", "time", "phases", "latency", "tokens"}


def test_the_controls_begin_with_what_the_record_says(subject: Subject) -> None:
    address, options, texts = settled(subject, None)
    assert options == {"window_s": "2", "max_batch": "none"}
    assert texts["policy"] == "batch-window"
    assert texts["stretch"] == texts["replicas"] == "1"
    assert texts["from_s"] == texts["to_s"] == texts["limit"] == ""
    assert not isinstance(address, str)  # it stays as it is


def test_a_control_changes_the_address_and_the_address_fills_the_controls(subject: Subject) -> None:
    address, *_ = settled(subject, control_of("replicas"), replicas="2", set_window_s="4")
    assert address == "?replicas=2&set.window_s=4"
    _, options, texts = settled(subject, "url", address)
    assert (options["window_s"], texts["replicas"]) == ("4", "2")


def test_another_policy_begins_with_its_own_options(subject: Subject) -> None:
    address, options, texts = settled(subject, control_of("policy"), policy="pace", set_window_s="4")
    assert address == "?policy=pace"
    assert set(options) == {"interval_s", "jitter_s", "seed"}
    assert texts["policy"] == "pace"


@pytest.mark.parametrize(
    ("search", "arguments"),
    [
        ("?policy=immediate", {"policy": "immediate"}),
        ("?set.window_s=5", {"options": {"window_s": 5}}),
        ("?replicas=3&router=least-loaded", {"replicas": 3, "router": "least-loaded"}),
        ("?policy=shortest-first&length_prediction=noisy:cv=0.5", {"policy": "shortest-first"}),
    ],
)
def test_what_is_simulated_anew_is_what_the_same_options_give_elsewhere(
    run: Path, subject: Subject, search: str, arguments: dict[str, Any]
) -> None:
    given: dict[str, Any] = {"policy": "batch-window", "options": {"window_s": 2}, "seed": 3}
    if "policy" in arguments:
        given["options"] = {}
    if "cv=0.5" in search:
        given["length_prediction"] = "noisy:cv=0.5"
    result = replay.api.simulate(
        run.parent / "toy.parquet", table=str(run.parent / "toy-table"), **(given | arguments)
    )
    page = shown(subject, search)
    assert page["notice"] == ""
    assert quantity(result.run.total_energy_j, "J") in numbers(page)
    assert quantity(result.summary["ttft_p99_s"], "s") in numbers(page)
    assert len(page["pictures"]["phases"]["figure"]["layout"]["annotations"]) == 2  # a row a run


def test_the_command_shown_makes_the_run_shown(subject: Subject, tmp_path: Path) -> None:
    runs = Runs(subject.offered)
    choice = {"set.window_s": "3", "replicas": "2", "from_s": "2", "to_s": "15", "stretch": "0.5"}
    picture = runs.picture(subject.bases[0], choice, is_asked=False)
    assert picture.case is not None
    words = [*command_of(picture.case)][1:]
    result = CliRunner().invoke(main, [*words, "--out", str(tmp_path / "again")])
    assert result.exit_code == 0, result.output
    again = read_run(tmp_path / "again")
    assert again.total_energy_j == picture.runs[1].run.total_energy_j
    assert again.meta.engine_options == picture.runs[1].run.meta.engine_options


@pytest.mark.parametrize(
    ("search", "words"),
    [
        ("?replicas=none", "replicas must be a whole number, got 'none'"),
        ("?replicas=100000", "replicas must be at most 256"),
        ("?stretch=-1", "stretch must be > 0, got -1"),
        ("?stretch=fast", "stretch must be a number, got 'fast'"),
        ("?from_s=900", "no request arrives"),
        ("?limit=x", "limit must be a whole number"),
        ("?set.window_s=-1", "window_s must be >= 0"),
        ("?set.nothing=1", "has no option 'nothing'"),
        ("?router=nowhere&replicas=2", "no router 'nowhere'"),
        ("?length_prediction=psychic", "length prediction must be"),
        ("?policy=carbon-aware", "intensity is needed"),
        ("?policy=nothing", "no policy 'nothing' is offered"),
        ("?table=nothing", "no table 'nothing' is offered"),
        ("?nothing=1", "nothing 'nothing' to choose"),
    ],
)
def test_a_bad_value_is_one_line_beside_the_run_as_recorded(
    run: Path, subject: Subject, search: str, words: str
) -> None:
    page = shown(subject, search)
    assert words in page["notice"]
    assert "\n" not in page["notice"]
    assert quantity(read_run(run).total_energy_j, "J") in numbers(page)


def test_a_control_with_a_bad_value_keeps_it_to_be_mended(subject: Subject) -> None:
    address, *_ = settled(subject, control_of("replicas"), replicas="many")
    assert address == "?replicas=many"
    assert settled(subject, "url", address)[2]["replicas"] == "many"


def test_policies_in_a_row_may_be_chosen_by_address(subject: Subject) -> None:
    page = shown(subject, "?policy=pace%2Bconcurrency&set.concurrency.most=4")
    assert page["notice"] == ""
    _, options, texts = settled(subject, "url", "?policy=pace%2Bconcurrency&set.concurrency.most=4")
    assert texts["policy"] == "pace+concurrency"
    assert options["concurrency.most"] == "4"
    assert "pace.interval_s" in options


def test_no_request_runs_the_code_of_a_file(subject: Subject, tmp_path: Path) -> None:
    path = tmp_path / "mine.py"
    path.write_text(MINE)
    name = f"{path}:Mine"
    page = shown(subject, f"?policy={name}")
    assert f"no policy '{name}' is offered" in page["notice"]
    assert "immediate+" + name not in subject.offered.policies
    shown(subject, f"?policy=immediate%2B{name}")
    settled(subject, control_of("policy"), policy=name)
    settled(subject, "url", f"?policy={name}&set.x=1")
    assert not path.with_suffix(".ran").exists()


def test_a_policy_in_a_file_is_offered_where_the_command_line_names_it(run: Path, tmp_path: Path) -> None:
    path = tmp_path / "mine.py"
    path.write_text(MINE)
    page = shown(subject_of(run, f"{path}:Mine"), f"?policy={path}:Mine")
    assert page["notice"] == ""
    assert path.with_suffix(".ran").exists()


def test_a_record_does_not_name_code_to_run_either(run: Path, tmp_path: Path) -> None:
    path = tmp_path / "mine.py"
    path.write_text(MINE)
    record = run.parent / "of-a-file"
    facts = json.loads((run / "run.json").read_text())
    record.mkdir()
    for each in run.iterdir():
        (record / each.name).write_bytes(each.read_bytes())
    (record / "run.json").write_text(json.dumps({**facts, "policy": f"{path}:Mine", "policy_options": {}}))
    page = shown(subject_of(record))
    assert "is offered" in page["notice"]
    assert page["has_no_controls"]
    assert not path.with_suffix(".ran").exists()


def test_no_request_names_a_file_by_an_option(subject: Subject) -> None:
    page = shown(subject, "?policy=carbon-aware&set.intensity=/etc/passwd")
    assert "may name a file" in page["notice"]
    page = shown(subject, "?policy=immediate%2Bcarbon-aware&set.carbon-aware.intensity=/etc/passwd")
    assert "may name a file" in page["notice"]
    _, options, _ = settled(subject, "url", "?policy=carbon-aware")
    assert "intensity" not in options
    assert "quantile" in options


def test_a_trace_that_is_gone_or_another_is_told_in_a_line(tmp_path: Path) -> None:
    run = make_run(TRACE, tmp_path)
    begun = subject_of(run)
    path = tmp_path / "toy.parquet"
    other = tmp_path / "elsewhere.parquet"
    write_trace(replace(toy_trace([0.0, 1.0]), sha256="1" * 64), other)
    path.replace(tmp_path / "kept")
    assert "the trace is gone" in shown(begun, "?replicas=2")["notice"]
    assert "no file toy.* is here" in shown(subject_of(run))["notice"]
    path.write_bytes(other.read_bytes())
    for page in (shown(begun, "?replicas=2"), shown(subject_of(run))):
        assert "by its hash" in page["notice"]
    assert "elsewhere.parquet is another" in shown(subject_of(run, trace=other))["notice"]
    assert shown(subject_of(run, trace=tmp_path / "kept"), "?replicas=2")["notice"] == ""


def test_many_requests_wait_for_the_button(subject: Subject, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("replay.explore_runs.AT_ONCE", 30)
    page = shown(subject, "?replicas=2")
    assert "40 requests take a while" in page["notice"]
    assert not page["waits_not"]
    assert page["pictures"]["split"]["figure"]["data"][0]["y"] == ["batch-window"]
    assert shown(subject, "?replicas=2", is_asked=True)["notice"] == ""
    assert shown(subject, "?replicas=2&limit=30")["notice"] == ""
    assert AT_ONCE > 19_366  # the shipped traces are not asked about


def test_the_page_has_a_place_for_every_figure(subject: Subject) -> None:
    assert set(shown(subject, "?replicas=2")["pictures"]) == set(FIGURES)


def test_another_table_brings_its_own_engine(subject: Subject) -> None:
    base = subject.bases[0].replay()
    case = chosen(base, {"table": "h200-llama-3.2-1b-bf16"}, subject.offered)
    assert case.engine_options() == Case(base.trace, table="h200-llama-3.2-1b-bf16").engine_options()


def test_a_table_that_is_not_offered_is_told_in_a_line(run: Path) -> None:
    begun = open_subject(run, Places(None, (run.parent,), ()), offer((), ()), (), "immediate")
    page = shown(begun)
    assert "no table 'toy-table' is offered" in page["notice"]
    assert "start the page with --table FOLDER" in page["notice"]


def test_a_measured_run_has_its_simulation_beside_it(run: Path) -> None:
    record = run.parent / "measured"
    record.mkdir()
    facts = json.loads((run / "run.json").read_text())
    for each in run.iterdir():
        (record / each.name).write_bytes(each.read_bytes())
    measured = {**facts, "kind": "measured", "table": None, "energy_source": "nvml"}
    (record / "run.json").write_text(json.dumps(measured))
    assert "batch-window, simulated" in numbers(shown(subject_of(record)))


def test_a_mixed_fleet_is_shown_and_not_simulated_anew(run: Path) -> None:
    record = run.parent / "mixed"
    record.mkdir()
    facts = json.loads((run / "run.json").read_text())
    for each in run.iterdir():
        (record / each.name).write_bytes(each.read_bytes())
    (record / "run.json").write_text(json.dumps({**facts, "engine_options": {"pools": []}}))
    page = shown(subject_of(record))
    assert "several pools" in page["notice"]
    assert "split" in page["pictures"]


def test_a_trace_begins_under_the_policy_given(run: Path) -> None:
    page = shown(subject_of(run.parent / "toy.parquet", policy="pace"))
    result = replay.api.simulate(run.parent / "toy.parquet", "pace", table=str(run.parent / "toy-table"))
    assert quantity(result.run.total_energy_j, "J") in numbers(page)


def test_something_else_is_no_subject(tmp_path: Path) -> None:
    make_table(tmp_path / "toy-table")
    with pytest.raises(ValueError, match="no run, sweep or trace"):
        subject_of(tmp_path / "nothing")


@pytest.fixture(scope="module")
def sweep(run: Path) -> Subject:
    """What the page about a sweep of two policies is about."""
    folder = run.parent
    line = ["sweep", str(folder / "toy.parquet"), "--table", str(folder / "toy-table"), "--jobs", "1"]
    line += ["--policy", "immediate", "--policy", "batch-window", "--grid", "window_s=1,3"]
    result = CliRunner().invoke(main, [*line, "--out", str(folder / "sweep")])
    assert result.exit_code == 0, result.output
    return subject_of(folder / "sweep")


def test_a_sweep_shows_its_points_and_waits_for_a_click(sweep: Subject) -> None:
    page = shown(sweep)
    assert page["has_no_controls"]
    assert "Click a point" in page["notice"]
    assert page["pictures"] == {}
    assert sweep.keys == ["sweep0"]


def test_a_click_on_a_point_simulates_what_the_sweep_found(sweep: Subject) -> None:
    figure = sweep.sweeps[0]
    for line in figure.data[1:]:
        for row, energy_j in zip(line["customdata"], line["y"], strict=True):
            clicked = {"points": [{"customdata": row}]}
            address, options, _, texts = settle(sweep, "sweep0", "", [""] * len(SHARED), [], [], [clicked])
            assert address == f"?cell={row}"
            assert texts[SHARED.index("policy")] == line["name"]
            page = shown(sweep, address)
            assert page["notice"] == ""
            assert quantity(energy_j, "J") in numbers(page)
            assert bool(options) == (line["name"] == "batch-window")
            assert sweep.bases[row].name in numbers(page)


@pytest.mark.parametrize("cell", ["3", "-1", "x", "²"])
def test_a_cell_that_there_is_not_is_told(sweep: Subject, cell: str) -> None:
    assert f"no cell '{cell}'" in shown(sweep, f"?cell={cell}")["notice"]


def test_what_is_chosen_in_a_cell_is_compared_with_the_cell(sweep: Subject) -> None:
    page = shown(sweep, "?cell=0&replicas=2")
    assert len(page["pictures"]["phases"]["figure"]["layout"]["annotations"]) == 2
