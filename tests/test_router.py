"""Routers: in turn, or to the replica with the fewest requests."""

from hypothesis import given
from hypothesis import strategies as st

from replay.main import main
from sim.router import ROUTERS, least_loaded, round_robin

LOADS = st.lists(st.integers(0, 20), min_size=1, max_size=8)


@given(LOADS, st.integers(0, 1000))
def test_round_robin_visits_every_replica_once_a_turn_however_busy(loads: list[int], first: int) -> None:
    turn = [round_robin(first + place, loads) for place in range(len(loads))]
    assert sorted(turn) == list(range(len(loads)))
    assert round_robin(0, loads) == 0


@given(LOADS, st.integers(0, 1000))
def test_least_loaded_is_the_first_of_those_with_the_fewest(loads: list[int], place: int) -> None:
    chosen = least_loaded(place, loads)
    assert all(load > loads[chosen] for load in loads[:chosen])
    assert all(load >= loads[chosen] for load in loads[chosen:])


def test_the_command_offers_every_router() -> None:
    command = main.get_command(None, "run")  # type: ignore[arg-type]
    assert command is not None
    (option,) = [parameter for parameter in command.params if parameter.name == "router"]
    assert list(option.type.choices) == list(ROUTERS)  # type: ignore[attr-defined]
