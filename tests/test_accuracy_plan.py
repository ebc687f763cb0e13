"""The plan behind docs/accuracy.md, and plans that name public traces."""

import re
from pathlib import Path

import pytest

from replay.cases import Case, read_plan
from traces.fetch import cache_folder
from traces.public import PublicTrace, public_trace

ROOT = Path(__file__).parents[1]
PAGE = (ROOT / "docs/accuracy.md").read_text()
CASES = read_plan(ROOT / "docs/accuracy-plan.json")
TITLES = {"azure-2023-conv": "conversation", "azure-2023-code": "code", "mooncake-conversation": "Mooncake"}
NAMES = {"mooncake-conversation": "mooncake_conversation_trace.jsonl"}
SHARED = ROOT.parent / "shared/traces"


@pytest.fixture(autouse=True)
def empty_cache(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path))


AZURE_ROWS = "TIMESTAMP,ContextTokens,GeneratedTokens\n" + "".join(
    f"2023-11-16 18:00:0{second}.0000000,10,5\n" for second in range(4)
)


def place(trace: PublicTrace) -> Path:
    path = cache_folder() / trace.name / trace.file_name
    path.parent.mkdir(parents=True)
    return path


@pytest.mark.parametrize("case", CASES, ids=lambda case: case.name)
def test_the_plan_is_what_the_page_says(case: Case) -> None:
    columns = rf"^\| {case.name} \| (.*) \| (\d+) to (\d+) \| (.*) \| ([\d,]+) \|$"
    (row,) = re.findall(columns, PAGE, re.MULTILINE)
    trace, from_s, to_s, policy, requests = row
    assert TITLES[case.trace] in trace
    assert {0.25: "four times as fast", 4: "quarter", None: ""}[case.stretch] in trace
    assert (case.from_s, case.to_s) == (int(from_s), int(to_s))
    assert f"`{case.policy}`" in policy
    assert case.settings.get("window_s") == ("10" if "10 s" in policy else None)
    source = SHARED / NAMES.get(case.trace, public_trace(case.trace).file_name)
    if not source.is_file():
        pytest.skip(f"needs ../shared/traces/{source.name}")
    place(public_trace(case.trace)).symlink_to(source)
    assert len(case.read_trace().arrival_s) == int(requests.replace(",", ""))


def test_a_case_may_name_a_public_trace_that_was_fetched() -> None:
    case = Case("few", "azure-2023-code", to_s=2.5)
    with pytest.raises(ValueError, match=r"not fetched yet; `replay trace fetch azure-2023-code` does$"):
        case.read_trace()
    place(public_trace(case.trace)).write_text(AZURE_ROWS)
    assert case.read_trace().arrival_s.tolist() == [0.0, 1.0, 2.0]


def test_a_file_goes_before_a_public_trace_of_that_name(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    place(public_trace("azure-2023-code")).write_text(AZURE_ROWS)
    Path("azure-2023-code").write_text("".join(AZURE_ROWS.splitlines(keepends=True)[:3]))
    assert len(Case("here", "azure-2023-code").read_trace().arrival_s) == 2


def test_another_name_is_a_file_that_is_missing() -> None:
    with pytest.raises(ValueError, match=r"nothing\.csv: no such file; case a names it as its trace"):
        Case("a", "nothing.csv").read_trace()
