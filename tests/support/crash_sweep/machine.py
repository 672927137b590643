"""Random schedules of faults on two jobs that share stages, as a state machine of hypothesis."""

from __future__ import annotations

import random
from collections import Counter
from typing import ClassVar

from hypothesis import strategies as st
from hypothesis.stateful import RuleBasedStateMachine, initialize, rule

from cosmos_operator.api.base import KIND
from cosmos_operator.api.labels import ATTEMPT_LABEL, JOB_NAME_LABEL
from cosmos_operator.controller.trim import has_ended
from cosmos_operator.kube.kinds import Manifest
from cosmos_operator.kube.objects import labels_of
from cosmos_operator.kube.server_clock import ServerClock
from support.crash_sweep.clock import SimulatedLoop
from support.crash_sweep.invariants import Invariants
from support.crash_sweep.model_client import FAULTS, ModelClient, Network
from support.crash_sweep.model_server import ModelServer
from support.crash_sweep.replica import Replica, simulated_time
from support.crash_sweep.workloads import STEPS, Workloads
from support.jobs import make_document

JOBS = ("one", "two")
CLAIM = "cosmos"
MAX_END_S = 2 * 3600
"""Seconds in which both jobs reach their end once nothing goes wrong any more."""
CLEAN_UP_S = 200
"""Seconds after their ends in which their objects are gone."""
REQUESTS = 150
"""Requests over the life of a job without faults, at most; measured: see docs/reliability.md."""
REQUESTS_OF_FAULT = 60
"""Requests that a fault may cost a job."""
OUTCOMES = {1: "Crashed", 74: "IoFailed", 80: "PeerLost", 81: "GpuFault", 137: "OOMKilled"}


class CrashSweep(RuleBasedStateMachine):
    """Two jobs, two replicas of the operator, and what may happen to them."""

    totals: ClassVar[Counter[str]] = Counter()
    """Sums over all schedules, for the table."""

    def __init__(self) -> None:
        super().__init__()
        self.loop = SimulatedLoop()
        self.time = simulated_time(self.loop)
        self.time.__enter__()
        self.server = ModelServer(self.loop)
        self.guard = Invariants(self.loop, self.server)
        self.replicas: list[Replica] = []
        self.clients: list[ModelClient] = []
        self.faults: Counter[str] = Counter()
        self.is_free_of_failures = True

    @initialize(
        seed=st.integers(0, 2**32 - 1), delay_s=st.sampled_from((0.0, 0.3, 5.0, 60.0, 150.0))
    )
    def begin(self, seed: int, delay_s: float) -> None:
        """Two jobs and two replicas of the operator; the seed chooses how long everything takes."""
        self.chance = random.Random(seed)
        random.seed(seed)  # of the operator's own pauses
        self.network = Network(random.Random(seed + 1))
        self.workloads = Workloads(self.server, self.chance)
        claim = {"accessModes": ["ReadWriteMany"]}
        self.server.create({"apiVersion": "v1", "kind": "PersistentVolumeClaim", "spec": claim,
                            "metadata": {"name": CLAIM, "namespace": "lab"}, "status": {"phase": "Bound"}})  # fmt: skip
        for name in ("a", "b"):
            replica = Replica(self.loop, name, self._connect, self.guard.broken)
            self.replicas.append(replica)
            self.loop.call_later(self.chance.uniform(0, 2), replica.start)
        self._submit(JOBS[0], 1)
        self.loop.run_for(delay_s)
        self._submit(JOBS[1], 2)

    def _connect(self, replica: Replica) -> ModelClient:
        client = ModelClient(
            self.server,
            self.network,
            self.guard.sent,
            self.guard.answered,
            replica.kill,
            ServerClock(self.loop.time, replica.now),
            replica.name,
        )
        self.clients.append(client)
        return client

    def _submit(self, name: str, seed: int) -> None:
        document = make_document(
            {
                "inference": [],
                "training.seed": seed,
                "training.steps": STEPS,
                "runPolicy": {"maxAttempts": 20},
            }
        )
        document["metadata"] = {"name": name, "namespace": "lab"}
        self.server.create(document)

    # --- the operator and its connection -------------------------------------------------------

    def _leader(self) -> Replica:
        lease = next(iter(self.server.all("Lease")), None)
        holder = lease["spec"]["holderIdentity"] if lease is not None else ""
        return next((one for one in self.replicas if one.name == holder), self.replicas[0])

    @rule(
        fault=st.sampled_from(FAULTS),
        number=st.integers(0, 40),
        times=st.integers(1, 3),
        seconds=st.integers(1, 60),
    )
    def meet_fault(self, fault: str, number: int, times: int, seconds: int) -> None:
        """The next requests of the leader but so many meet a fault."""
        client = self._leader().client
        if client is not None:
            client.armed |= {number + index: fault for index in range(times)}
        self.loop.run_for(seconds)

    @rule(seconds=st.integers(1, 90), both=st.booleans())
    def cut_off(self, seconds: int, both: bool) -> None:
        """The leader, or everybody, does not reach the API server for a while."""
        self.faults["cut off"] += 1
        for replica in self.replicas if both else (self._leader(),):
            if replica.client is not None:
                replica.client.cut_off_until_s = self.loop.time() + seconds
        self.server.wake()
        self.loop.run_for(seconds + 1)

    @rule(seconds=st.floats(0.1, 30))
    def kill(self, seconds: float) -> None:
        """The leader is killed."""
        self.faults["killed"] += 1
        self._leader().kill()
        self.loop.run_for(seconds)

    # --- watches -------------------------------------------------------------------------------

    @rule(forgotten=st.booleans(), seconds=st.integers(1, 20))
    def cut_watches(self, forgotten: bool, seconds: int) -> None:
        """All watches end, with events on their way; forgotten: the API server has no history any more."""
        self.faults["events lost" if forgotten else "watches cut"] += 1
        self.network.epoch += 1
        if forgotten:
            self.server.forget_history()
        self.server.wake()
        self.loop.run_for(seconds)

    @rule(number=st.integers(1, 30), seconds=st.integers(1, 20))
    def repeat_events(self, number: int, seconds: int) -> None:
        """All watches send older versions of objects again."""
        self.faults["events repeated"] += 1
        self.network.replays += 1
        self.network.num_replayed = number
        self.server.wake()
        self.loop.run_for(seconds)

    @rule(seconds=st.integers(2, 60))
    def stall_watches(self, seconds: int) -> None:
        """No event arrives for a while, so that the cache is old."""
        self.faults["stale cache"] += 1
        self.network.stalled_until_s = self.loop.time() + seconds
        self.loop.run_for(seconds / 2)

    # --- clocks --------------------------------------------------------------------------------

    @rule(seconds=st.sampled_from((-3600, -120, -20, 20, 50, 120, 3600)))
    def jump_clock(self, seconds: int) -> None:
        """The clock of the leader's machine jumps."""
        self.faults["clock jumped"] += 1
        self._leader().clock_s += seconds
        self.loop.run_for(10)

    @rule(seconds=st.sampled_from((-7200, -60, 60, 7200)))
    def set_node_clock(self, seconds: int) -> None:
        """The clocks of the nodes are wrong."""
        self.faults["node clock wrong"] += 1
        self.workloads.node_clock_s = seconds

    # --- pods and people -----------------------------------------------------------------------

    @rule(choice=st.integers(0, 9), seconds=st.integers(1, 40))
    def evict(self, choice: int, seconds: int) -> None:
        """A pod that runs is evicted."""
        if running := self.workloads.running():
            self.faults["pod evicted"] += 1
            pod = running[choice % len(running)]
            if "deletionTimestamp" not in pod["metadata"]:
                self.workloads.evict(pod)
        self.loop.run_for(seconds)

    @rule(
        choice=st.integers(0, 9), code=st.sampled_from(sorted(OUTCOMES)), seconds=st.integers(1, 60)
    )
    def crash_training(self, choice: int, code: int, seconds: int) -> None:
        """The worker of a training fails."""
        running = [one for one in self.workloads.running() if ATTEMPT_LABEL in labels_of(one)]
        if running:
            self.faults["training failed"] += 1
            self.is_free_of_failures = False
            metadata = running[choice % len(running)]["metadata"]
            self.workloads.end(metadata["name"], metadata["uid"], code, OUTCOMES[code])
        self.loop.run_for(seconds)

    @rule(choice=st.integers(0, 9), seconds=st.integers(1, 40))
    def delete_workload(self, choice: int, seconds: int) -> None:
        """Somebody deletes a Job that runs."""
        names = sorted(labels_of(one)[JOB_NAME_LABEL] for one in self.workloads.running())
        if names:
            self.faults["Job deleted by people"] += 1
            found = self.server.get("Job", names[choice % len(names)])
            if found is not None:
                self.guard.deleted_by_people.add(found["metadata"]["name"])
                self.server.delete(found, foreground=True)
        self.loop.run_for(seconds)

    @rule(name=st.sampled_from(JOBS), suspend=st.booleans(), seconds=st.integers(1, 60))
    def suspend(self, name: str, suspend: bool, seconds: int) -> None:
        """Somebody suspends a job, or lets it go on."""
        self.faults["job suspended or resumed"] += 1
        self._edit(name, suspend=suspend)
        self.loop.run_for(seconds)

    @rule(name=st.sampled_from(JOBS), seconds=st.integers(0, 10))
    def touch(self, name: str, seconds: int) -> None:
        """Somebody else writes to a job, so that the operator's version of it is old."""
        self.faults["job changed by others"] += 1
        self._edit(name, annotation=f"{self.loop.time()}")
        self.loop.run_for(seconds)

    @rule(seconds=st.integers(1, 240))
    def wait(self, seconds: int) -> None:
        """Nothing happens."""
        self.loop.run_for(seconds)

    def _edit(self, name: str, *, suspend: bool | None = None, annotation: str = "") -> None:
        job = self.server.get(KIND, name)
        if job is None:
            return

        def edit(new: Manifest) -> None:
            if suspend is not None and new["spec"]["runPolicy"].get("suspend", False) != suspend:
                new["spec"]["runPolicy"]["suspend"] = suspend
                new["metadata"]["generation"] += 1
            if annotation:
                new["metadata"]["annotations"] = {"lab/note": annotation}

        self.server.change(job, edit)

    # --- the end -------------------------------------------------------------------------------

    def check_invariants(self, *arguments: object, **options: object) -> None:
        """Stop at the first rule that is broken."""
        super().check_invariants(*arguments, **options)
        self._check()

    def _check(self) -> None:
        assert not self.guard.violations, "; ".join(self.guard.violations[:3])
        assert not self.loop.errors, self.loop.errors[0]

    def teardown(self) -> None:
        """Nothing goes wrong any more: both jobs reach their end, and leave nothing behind."""
        try:
            self._check()
            if self.replicas:
                self._converge()
                self._check()
                self._count()
        finally:
            self.loop.finish()
            self.time.__exit__(None, None, None)

    def _converge(self) -> None:
        for replica in self.replicas:
            replica.clock_s = 0.0
            if replica.client is not None:
                replica.client.armed, replica.client.cut_off_until_s = {}, 0.0
        self.network.stalled_until_s = self.workloads.node_clock_s = 0.0
        for name in JOBS:
            self._edit(name, suspend=False)
        ends_s = self.loop.time() + MAX_END_S
        while not all(map(has_ended, self.server.all(KIND))) and self.loop.time() < ends_s:
            self.loop.run_for(20)
        for job in self.server.all(KIND):
            status, name = job.get("status", {}), job["metadata"]["name"]
            assert has_ended(job), (
                f"{name} does not end: {status.get('state')}: {status.get('message')}"
            )
            ended = status["state"]
            assert ended == "Succeeded" or not self.is_free_of_failures, (
                f"{name}: {status.get('message')}"
            )
        self.loop.run_for(CLEAN_UP_S)
        left = [
            key for key in self.server.objects if key[0] in ("Job", "Pod", "ConfigMap", "Service")
        ]
        assert not left, f"left behind: {left}"
        assert self.server.get("PersistentVolumeClaim", CLAIM) is not None
        limit = REQUESTS + REQUESTS_OF_FAULT * (
            sum(self.faults.values()) + sum(map(len, self._met()))
        )
        assert max(self.guard.requests.values()) <= limit, f"{self.guard.requests} > {limit}"

    def _met(self) -> list[list[str]]:
        return [client.met for client in self.clients]

    def _count(self) -> None:
        totals = type(self).totals
        totals["schedules"] += 1
        totals["processes"] += len(self.clients)
        totals["simulated s"] += round(self.loop.time())
        totals["requests of passes"] += sum(self.guard.requests.values())
        totals["passes"] += sum(sum(one.passes.values()) for one in self.replicas)
        most = max(self.guard.requests.values())
        totals["most requests of a job"] = max(totals["most requests of a job"], most)
        for job in self.server.all(KIND):
            totals[f"jobs {job['status']['state']}"] += 1
        for name, number in (
            self.faults + Counter(fault for met in self._met() for fault in met)
        ).items():
            totals[f"fault: {name}"] += number
