"""What a request may choose by name."""

from collections.abc import Sequence
from dataclasses import dataclass

from sim.registry import policy_names, settings_of_policy
from sim.sweep import Case
from sim.table_files import load_table, shipped


@dataclass(frozen=True, slots=True)
class Offer:
    """What may be chosen, beyond numbers: nothing else is looked up, read or run for a request.

    Attributes:
        policies: By name, and those that the command line named.
        tables: Those that ship, and those that the command line named.
    """

    policies: tuple[str, ...]
    tables: tuple[str, ...]

    def has_policy(self, name: str) -> bool:
        """Say whether a policy, or each of several in a row, may be looked up."""
        return name in self.policies or set(name.split("+")) <= set(policy_names())

    def ensure(self, case: Case) -> None:
        """Refuse a replay with what is not offered.

        Raises:
            ValueError: Its policy or its table is not.
        """
        if not self.has_policy(case.policy):
            raise ValueError(
                f"no policy {case.policy!r} is offered; there are {', '.join(self.policies)}; to offer one "
                "in a file, start the page with --policy FILE.py:CLASS"
            )
        if case.table not in self.tables:
            raise ValueError(
                f"no table {case.table!r} is offered; there are {', '.join(self.tables)}; to offer "
                "another one, start the page with --table FOLDER"
            )


def offer(policies: Sequence[str], tables: Sequence[str]) -> Offer:
    """Return what there is by name, and what the command line names.

    Raises:
        ValueError: There is no such policy or table.
    """
    for policy in policies:
        settings_of_policy(policy)
    for table in tables:
        load_table(table)
    return Offer(
        tuple(dict.fromkeys((*policy_names(), *policies))), tuple(dict.fromkeys((*shipped(), *tables)))
    )
