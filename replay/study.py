"""The search of `replay optimize`: an Optuna study, kept trial by trial in a journal."""

from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

from sim.sweep import Case
from sim.sweep_combinations import put
from sim.sweep_grid import Span
from sim.sweep_key import inputs_of, key_of
from sim.sweep_result import Result
from sim.sweep_slos import Slos

if TYPE_CHECKING:
    import optuna

JOURNAL = "optimize.journal"
VALID = "valid"
LARGEST = 1e9

Evaluate = Callable[[Case], Result | None]
"""Simulates a case or reads its result; None if it cannot be simulated."""


@dataclass(frozen=True, slots=True)
class Problem:
    """What is searched for: the least energy per request within limits.

    Attributes:
        base: What is not varied.
        spans: What is.
        slos: What has to be kept.
    """

    base: Case
    spans: Sequence[Span]
    slos: Slos

    @property
    def name(self) -> str:
        """Name of the study: a hash of all that the trials depend on."""
        over = {"over": [asdict(span) for span in self.spans]}
        return key_of({**inputs_of(self.base), **over, **self.slos.facts})

    def case(self, values: Mapping[str, float]) -> Case:
        """Return the case of one trial; numbers have six digits, as they are printed.

        Raises:
            ValueError: There is no such input, or its value is no number.
        """
        case = self.base
        for span in self.spans:
            case = put(case, span.name, f"{values[span.name]:.6g}")
        return case

    def check(self) -> None:
        """Refuse what cannot be searched.

        Raises:
            ValueError: Optuna is not installed, something is no number of policy, fleet or engine, is given
                twice, or one of its ends is refused.
        """
        _optuna()
        names = [span.name for span in self.spans]
        for span in self.spans:
            if span.name in ("stretch", "length_prediction"):
                raise ValueError(f"--over {span.name}: energies under it are not compared; use replay sweep")
            if names.count(span.name) > 1:
                raise ValueError(f"--over {span.name} is given twice; give one range")
        inputs_of(self.case({span.name: span.low for span in self.spans}))
        inputs_of(self.case({span.name: span.high for span in self.spans}))


def search(problem: Problem, trials: int, out: Path, evaluate: Evaluate) -> Iterator[Result | None]:
    """Yield what the trials came to, those of earlier calls first; however many calls, they are the same.

    Args:
        problem: What is searched for.
        trials: How many, earlier ones included.
        out: Folder of the journal.
        evaluate: Tells what a case comes to.
    """
    optuna = _optuna()
    from optuna.storages.journal import JournalFileBackend

    optuna.logging.set_verbosity(optuna.logging.WARNING)
    storage = optuna.storages.JournalStorage(JournalFileBackend(str(out / JOURNAL)))
    study = optuna.create_study(storage=storage, study_name=problem.name, load_if_exists=True)
    state = optuna.trial.TrialState
    for trial in study.get_trials(states=(state.RUNNING,)):
        study.tell(trial.number, state=state.FAIL)  # cut off, and asked for again below
    answered = study.get_trials(states=(state.COMPLETE, state.PRUNED))[:trials]
    for trial in answered:
        yield evaluate(problem.case(trial.params))
    for number in range(len(answered), trials):
        # A seed of its own: a trial is the same whether or not the search was interrupted before it.
        study.sampler = optuna.samplers.TPESampler(seed=problem.base.seed + number)
        yield _try(study, problem, evaluate)


def _try(study: "optuna.Study", problem: Problem, evaluate: Evaluate) -> Result | None:
    from optuna.trial import TrialState

    trial = study.ask()
    for span in problem.spans:
        if span.is_whole:
            trial.suggest_int(span.name, int(span.low), int(span.high))
        else:
            trial.suggest_float(span.name, span.low, span.high)
    result = evaluate(problem.case(trial.params))
    summary = None if result is None else result.summary
    trial.set_constraint(VALID, 0.0 if summary is not None and summary.energy_valid else 1.0)
    for name, excess in problem.slos.excesses(summary).items():
        trial.set_constraint(name, min(excess, LARGEST))
    energy_j = None if summary is None else summary.energy_j_per_request
    study.tell(trial, energy_j, TrialState.PRUNED if energy_j is None else TrialState.COMPLETE)
    return result


def _optuna() -> Any:
    try:
        import optuna
    except ImportError as error:
        raise ValueError(
            "replay optimize needs Optuna, which is not installed; pip install 'replay[optimize]'"
        ) from error
    return optuna
