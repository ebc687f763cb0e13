"""Which GPUs an engine uses, and who else computes on them."""

import hashlib
from collections.abc import Mapping
from typing import Any

from backends.nvml import GpuFacts, open_gpus


class ProcessWatch:
    """Looks at metered GPUs and at who computes on them.

    Attributes:
        facts: Of the metered GPUs.
    """

    def __init__(self, metered: tuple[int, ...]) -> None:
        self._metered = metered
        self.facts = _facts(metered)
        _refuse_mig(self.facts)
        self._known: frozenset[int] = frozenset()

    def foreign_process_ids(self) -> tuple[int, ...]:
        """Return who computes on the metered GPUs now and is not the engine."""
        return tuple(sorted(self._process_ids() - self._known))

    def uuid_hashes(self) -> list[str]:
        """Return what identifies the metered GPUs without naming them."""
        return _uuid_hashes(self.facts)

    def _process_ids(self) -> frozenset[int]:
        return frozenset(pid for fact in _facts(self._metered) for pid in fact.process_ids)


class GpuWatch(ProcessWatch):
    """Watches the metered GPUs: create it before the engine starts, tell it when the engine is up.

    Who computes on a GPU is told by comparing before and after, because inside a container NVML's process ids
    may be those of the host.

    Attributes:
        facts: Of the metered GPUs.
        engine_uuids: UUIDs of the GPUs that the engine is given.
    """

    def __init__(self, metered: tuple[int, ...], engine: tuple[int, ...]) -> None:
        """Look at the GPUs with these NVML indices.

        Raises:
            MeterError: NVML does not start or has no such GPU.
            ValueError: MIG is on.
        """
        super().__init__(metered)
        self.engine_uuids = tuple(fact.uuid for fact in _facts(engine))
        self._before = _process_ids_by_gpu()
        self._strangers = self._process_ids()

    def engine_is_up(self) -> None:
        """Note that whoever came to the GPUs since the beginning is the engine.

        Raises:
            ValueError: Somebody came to a GPU that is not metered, and nobody to one that is.
        """
        now = _process_ids_by_gpu()
        came = {index for index, ids in now.items() if ids - self._before.get(index, frozenset())}
        lonely, elsewhere = sorted(set(self._metered) - came), sorted(came - set(self._metered))
        if lonely and elsewhere:
            raise ValueError(
                f"GPU {lonely[0]} is metered, but the engine computes on GPU {elsewhere[0]}; "
                f"set CUDA_VISIBLE_DEVICES and CUDA_DEVICE_ORDER=PCI_BUS_ID"
            )
        self._known = self._process_ids() - self._strangers


class ServerWatch(ProcessWatch):
    """Watches metered GPUs on which a server computes that somebody else has started.

    Nothing tells which GPUs it uses: those metered are taken to be all of them, and whoever computes on them
    at the beginning is taken to be the server.

    Attributes:
        facts: Of the metered GPUs.
        engine_uuids: The same GPUs' UUIDs.
    """

    def __init__(self, metered: tuple[int, ...]) -> None:
        """Look at the GPUs with these NVML indices, none to meter nothing.

        Raises:
            MeterError: NVML does not start or has no such GPU.
            ValueError: MIG is on, or nobody computes on a GPU.
        """
        super().__init__(metered)
        self.engine_uuids = tuple(fact.uuid for fact in self.facts)
        for index, fact in zip(metered, self.facts, strict=True):
            if not fact.process_ids:
                raise ValueError(f"nobody computes on GPU {index}; give by --gpu those that the server uses")
        self._known = self._process_ids()


def free_gpus(metered: tuple[int, ...], engine: tuple[int, ...]) -> GpuWatch:
    """Return a watch of GPUs on which nobody computes yet.

    Raises:
        MeterError: NVML does not start or has no such GPU.
        ValueError: MIG is on, or somebody computes on a metered GPU.
    """
    watch = GpuWatch(metered, engine)
    busy = watch.foreign_process_ids()
    if busy:
        raise ValueError(f"process {busy[0]} computes on the GPU; its energy would be counted too")
    return watch


def engine_gpus(
    options: Mapping[str, Any], environment: Mapping[str, str], replicas: int = 1
) -> tuple[int, ...]:
    """Return the NVML indices of the GPUs that vLLM takes: the first visible ones.

    Args:
        options: vLLM engine options, of each replica.
        environment: Where CUDA_VISIBLE_DEVICES may stand.
        replicas: How many engines, each on GPUs of its own.

    Raises:
        MeterError: NVML does not start.
        ValueError: Fewer GPUs are visible than the options need.
    """
    count = replicas
    for name in ("tensor_parallel_size", "pipeline_parallel_size", "data_parallel_size"):
        count *= int(options.get(name, 1))
    visible = environment.get("CUDA_VISIBLE_DEVICES")
    with open_gpus() as gpus:
        uuids = [gpu.facts().uuid for gpu in gpus]
    if visible is None:
        found = list(range(len(uuids)))
    else:
        found = [_index(name.strip(), uuids) for name in visible.split(",") if name.strip()]
    if len(found) < count:
        needs = "the engine needs" if replicas == 1 else f"{replicas} replicas need"
        raise ValueError(f"{needs} {count} GPUs, {len(found)} are visible; see CUDA_VISIBLE_DEVICES")
    return tuple(found[:count])


def _refuse_mig(facts: tuple[GpuFacts, ...]) -> None:
    if any(fact.mig for fact in facts):
        raise ValueError("MIG is on: an instance reports its whole GPU's energy; measure without MIG")


def _uuid_hashes(facts: tuple[GpuFacts, ...]) -> list[str]:
    return [hashlib.sha256(fact.uuid.encode()).hexdigest()[:16] for fact in facts]


def _index(name: str, uuids: list[str]) -> int:
    if name.isdigit() and int(name) < len(uuids):
        return int(name)
    matches = [index for index, uuid in enumerate(uuids) if uuid.startswith(name)]
    if name.isdigit() or len(matches) != 1:
        raise ValueError(
            f"CUDA_VISIBLE_DEVICES names {name!r}; there are {', '.join(uuids)}, 0 to {len(uuids) - 1}"
        )
    return matches[0]


def _process_ids_by_gpu() -> dict[int, frozenset[int]]:
    with open_gpus() as gpus:
        return {index: frozenset(gpu.facts().process_ids) for index, gpu in enumerate(gpus)}


def _facts(indices: tuple[int, ...]) -> tuple[GpuFacts, ...]:
    if not indices:
        return ()
    with open_gpus(indices) as gpus:
        return tuple(gpu.facts() for gpu in gpus)
