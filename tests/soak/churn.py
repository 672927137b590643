"""Jobs that are created, suspended, resumed, edited, made to fail, and deleted, and what is left of them."""

from __future__ import annotations

import random
from collections import Counter
from collections.abc import Callable, Mapping

from support.scenario_world import Refusal, ScenarioWorld

PREFIX = "soak-"
AT_A_TIME = 4
"""Jobs that exist at a time, so that a level is reached and held."""
TTL_S = 20
KINDS = {
    "posttrainingjobs": "/apis/cosmos.dev/v1alpha1 posttrainingjobs",
    "jobs": "/apis/batch/v1 jobs",
    "pods": "/api/v1 pods",
    "config maps": "/api/v1 configmaps",
    "services": "/api/v1 services",
}


class Churn:
    """Keeps some jobs alive and does something to one of them at each step.

    Args:
        world: the cluster.
        seed: of the choices.
    """

    def __init__(self, world: ScenarioWorld, seed: int) -> None:
        self.world, self.counts = world, Counter[str]()
        self._rng, self._number = random.Random(seed), 0

    def step(self) -> None:
        """Create a job if there is room, else do something to one."""
        names = self.living()
        if len(names) < AT_A_TIME:
            self._create()
            return
        name = self._rng.choice(names)
        action: Callable[[str], object] = self._rng.choice(
            (self._suspend, self._resume, self._edit, self._delete, self._delete)
        )
        try:
            action(name)
        except Refusal:  # such as an edit of a job that has ended
            self.counts["refused"] += 1
        else:
            self.counts[action.__name__.strip("_")] += 1

    def living(self) -> list[str]:
        """Names of the jobs of this churn that exist."""
        found = self.world.list(KINDS["posttrainingjobs"])
        names = [one["metadata"]["name"] for one in found]
        return sorted(name for name in names if name.startswith(PREFIX))

    def _create(self) -> None:
        name, self._number = f"{PREFIX}{self._number}", self._number + 1
        policy = {"ttlSecondsAfterFinished": TTL_S} if self._rng.random() < 0.7 else {}
        changes = {"runPolicy": policy}
        is_wrong = self._rng.random() < 0.2
        if is_wrong:  # its dataset is not there, so that the job fails
            dataset = self.world.document(name)["spec"]["dataset"]
            changes["dataset"] = dataset | {"source": {"path": "/nowhere"}, "name": "nowhere"}
        self.world.submit(name, **changes)
        self.counts["create to fail" if is_wrong else "create"] += 1

    def _suspend(self, name: str) -> None:
        self.world.patch(name, {"runPolicy": {"suspend": True}})

    def _resume(self, name: str) -> None:
        self.world.patch(name, {"runPolicy": {"suspend": False}})

    def _edit(self, name: str) -> None:
        self.world.patch(name, {"checkpoints": {"everySteps": self._rng.choice((5, 10, 20))}})

    def _delete(self, name: str) -> None:
        self.world.delete(name)

    def end(self) -> None:
        """Delete all jobs of this churn."""
        for name in self.living():
            self.world.delete(name)


def sample(world: ScenarioWorld, process: Mapping[str, float]) -> dict[str, float]:
    """Everything that may grow: facts of the operator's process, and objects of each kind."""
    objects = {f"objects: {kind}": float(len(world.list(path))) for kind, path in KINDS.items()}
    return {**process, **objects}
