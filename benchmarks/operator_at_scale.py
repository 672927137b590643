"""Measure the operator, as a process, beside a real API server and etcd with many jobs whose pods are simulated.

Run ``.venv/bin/python benchmarks/operator_at_scale.py [--sizes 250/2250,500/4500,1000/9000]``; the programs that it
needs are made by ``make api-server-programs``. It prints a table in Markdown, and writes all figures as JSON with
``--json FILE``. ``--checkout FOLDER`` measures the operator of another checkout.

kube-apiserver, etcd, the controllers of Jobs and kube-scheduler are real. Nodes are simulated: pods run for some
seconds, report progress in their logs, and end. Of the live jobs a tenth runs, three tenths are suspended, and the
others wait for a GPU. Finished jobs are copies of a job that this operator has carried out, a ninth of them with their
Jobs and pods.
"""

from __future__ import annotations

import argparse
import asyncio
import json
import os
import platform
import signal
import sys
import tempfile
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import yaml

ROOT = Path(__file__).resolve().parents[1]
sys.path[:0] = [str(ROOT / "benchmarks"), str(ROOT / "tests" / "cluster")]

from scale import control_plane, fleet  # noqa: E402 - they are found now
from scale.api import Api, Refusal  # noqa: E402
from scale.control_plane import ADMINISTRATOR, OPERATOR, ControlPlane  # noqa: E402
from scale.measure import Bench, Measured  # noqa: E402
from scale.nodes import Nodes  # noqa: E402
from scale.operator_process import OperatorProcess, Requests  # noqa: E402
from scale.table import table  # noqa: E402

JOB_LABEL = "cosmos.dev/job"
GPUS = 8
"""Largest number of GPUs of a node."""
SETTLE_S = 30
"""Time after which what was started before no longer counts as work."""


def main(arguments: Sequence[str] | None = None) -> int:
    """Run the benchmark; returns the exit code."""
    options = build_parser().parse_args(arguments)
    if options.folder is None:
        with tempfile.TemporaryDirectory(prefix="operator-at-scale-") as folder:
            result = asyncio.run(run(options, Path(folder)))
    else:
        options.folder.mkdir(parents=True, exist_ok=True)
        result = asyncio.run(run(options, options.folder.resolve()))
    if options.json is not None:
        options.json.write_text(json.dumps(result, indent=2) + "\n", encoding="utf-8")
    print(table(result))
    return 0


def build_parser() -> argparse.ArgumentParser:
    """The argument parser."""
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument(
        "--sizes",
        type=_sizes,
        default=_sizes("250/2250,500/4500,1000/9000"),
        metavar="LIVE/FINISHED,...",
        help="numbers of jobs, each at least as large as the one before",
    )
    parser.add_argument(
        "--burst", type=int, default=100, metavar="N", help="jobs that are applied together"
    )
    parser.add_argument(
        "--life-steps",
        type=int,
        default=60,
        metavar="N",
        help="steps, of a second each, of the job that is followed from beginning to end",
    )
    parser.add_argument(
        "--rest", type=float, default=60, metavar="SECONDS", help="time of a measurement at rest"
    )
    parser.add_argument(
        "--with-objects",
        type=int,
        default=9,
        metavar="N",
        help="one of N finished jobs still has its Jobs, pods and ConfigMaps",
    )
    parser.add_argument(
        "--checkout", type=Path, default=ROOT, metavar="FOLDER", help="whose operator is measured"
    )
    parser.add_argument("--json", type=Path, metavar="FILE", help="where to write the figures")
    parser.add_argument(
        "--folder", type=Path, metavar="FOLDER", help="where to leave data and logs"
    )
    return parser


def _sizes(text: str) -> list[tuple[int, int]]:
    return [(int(live), int(done)) for live, done in (one.split("/") for one in text.split(","))]


async def run(options: argparse.Namespace, folder: Path) -> dict[str, Any]:
    """Measure everything; returns the figures."""
    checkout = options.checkout.resolve()
    with control_plane.running(folder) as plane:
        api = Api(plane.url, plane.tls, ADMINISTRATOR)
        nodes = Nodes(api)
        operator = OperatorProcess(folder, plane.kubeconfig, checkout)
        bench = Bench(api, operator, Requests(plane.audit_log), fleet.Documents(checkout))
        try:
            await nodes.start()
            await _install(api, nodes, checkout)
            return await _measure(options, bench, nodes, plane)
        finally:
            await operator.stop()
            await nodes.stop()
            await api.close()


async def _install(api: Api, nodes: Nodes, checkout: Path) -> None:
    """Make the resources, the operator's rights, the teams, and the nodes of jobs that run through."""
    for path in sorted((checkout / "charts" / "cosmos" / "files").glob("*crd*.yaml")):
        for crd in yaml.load_all(path.read_bytes(), yaml.CSafeLoader):
            await api.call("POST", "/apis/apiextensions.k8s.io/v1/customresourcedefinitions", crd)
    rights = "/apis/rbac.authorization.k8s.io/v1/clusterrolebindings"
    role = {"apiGroup": "rbac.authorization.k8s.io", "kind": "ClusterRole", "name": "cluster-admin"}
    subject = {"apiGroup": "rbac.authorization.k8s.io", "kind": "User", "name": OPERATOR}
    body = {"metadata": {"name": OPERATOR}, "roleRef": role, "subjects": [subject]}
    await api.call("POST", rights, body)
    for number in range(fleet.TEAMS):
        await fleet.make_namespace(api, fleet.team(number))
    await nodes.add("spare", fleet.SPARE, GPUS)
    await nodes.add("full", fleet.FULL, GPUS)
    await fleet.hold_gpus(api, "full", GPUS)
    while True:
        try:
            await api.list(fleet.jobs_path("default"))
            return
        except Refusal:
            await asyncio.sleep(0.1)


async def _measure(
    options: argparse.Namespace, bench: Bench, nodes: Nodes, plane: ControlPlane
) -> dict[str, Any]:
    await bench.start_operator()
    _say("one job is carried out")
    life_s, requests = await bench.live_one_job(options.life_steps)
    _say(f"it took {life_s:.0f} s and {requests.total()} requests")
    await bench.operator.stop()
    template = await fleet.read_finished(bench.api, JOB_LABEL)
    result: dict[str, Any] = {
        "machine": {"cores": os.cpu_count(), "python": platform.python_version()},
        "life": {
            "seconds": life_s,
            "steps": options.life_steps,
            "requests": requests.total(),
            "by_kind": dict(requests.most_common()),
            "objects_left": template.num_objects,
        },
        "sizes": [],
    }
    before, finished_before = fleet.Live(), 0
    for live_total, finished in options.sizes:
        live = fleet.shares(live_total)
        _say(f"{live_total} live and {finished} finished jobs are made")
        await _copy(bench, plane, template, range(finished_before, finished), options.with_objects)
        await _add_nodes(nodes, range(before.running, live.running))
        await bench.start_operator()
        await _extend(bench, before, live)
        result["sizes"].append(await _measure_size(options, bench, live, finished))
        if options.json is not None:  # what is known, if a later size fails
            options.json.write_text(json.dumps(result, indent=2) + "\n", encoding="utf-8")
        await bench.operator.stop()
        before, finished_before = live, finished
    result["load_average"] = os.getloadavg()
    return result


async def _copy(
    bench: Bench, plane: ControlPlane, template: fleet.Finished, numbers: range, with_objects: int
) -> None:
    """Make finished jobs while nobody acts on them."""
    os.kill(plane.controllers.pid, signal.SIGSTOP)
    try:
        await fleet.copy_finished(bench.api, template, numbers, with_objects)
    finally:
        os.kill(plane.controllers.pid, signal.SIGCONT)


async def _add_nodes(nodes: Nodes, gpus: range) -> None:
    """Nodes with so many more GPUs for jobs that run for ever."""
    for first in gpus[::GPUS]:
        await nodes.add(f"busy-{first}", fleet.BUSY, min(GPUS, gpus.stop - first))


async def _extend(bench: Bench, before: fleet.Live, live: fleet.Live) -> None:
    """Make live jobs, part after part: suspended ones find the shared Jobs done."""
    for part in ("running", "waiting", "suspended"):
        numbers = range(getattr(before, part), getattr(live, part))
        await fleet.make_live(bench.api, bench.documents, part, numbers)
        await bench.settle(part, numbers.stop)
        _say(f"{numbers.stop} jobs are {part}")


async def _measure_size(
    options: argparse.Namespace, bench: Bench, live: fleet.Live, finished: int
) -> dict[str, Any]:
    measured = Measured(live.total, finished)
    measured.parts = {name: getattr(live, name) for name in ("running", "waiting", "suspended")}
    measured.watched_objects = await bench.count_objects()
    await bench.restart(measured, live)
    assert measured.restart_s is not None
    _say(f"restart: {measured.restart_s:.1f} s, {measured.restart_peak_mb:.0f} MB at the peak")
    await asyncio.sleep(SETTLE_S if options.rest >= SETTLE_S else options.rest)
    await bench.rest(measured, options.rest)
    _say(
        f"at rest: {measured.rest_percent_of_core:.1f} % of a core, {measured.rest_rss_mb:.0f} MB, "
        f"{measured.rest_requests_per_s:.1f} requests/s"
    )
    await bench.burst(measured, options.burst)
    _say(
        f"{options.burst} jobs: median {measured.burst_median_s:.2f} s, p99 {measured.burst_p99_s:.2f} s"
    )
    return measured.as_dict()


def _say(text: str) -> None:
    print(text, file=sys.stderr, flush=True)


if __name__ == "__main__":
    sys.exit(main())
