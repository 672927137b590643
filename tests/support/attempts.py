"""A job with a running training, in the simulated cluster of decisions.py."""

from __future__ import annotations

from support.decisions import Simulation

TWO_NODES = {"compute": {"nodes": 2, "processesPerNode": 1}}


def training(changes=None, **options):
    """A job whose first attempt runs and has reported step 10 of 40."""
    simulation = Simulation(changes, **options)
    simulation.prepare()
    run(simulation, 10)
    return simulation


def run(simulation, step):
    """Start the pods of the latest attempt and let it report a step."""
    pods = simulation.start_pods(simulation.running_attempt())
    report(simulation, step, pods[0])
    simulation.settle()


def report(simulation, step, pod=None):
    pod = pod or simulation.pods_of(simulation.attempts[-1]["workload"])[0]
    name = pod["metadata"]["name"]
    simulation.say(name, f"step={step}/40 loss=0.1834 lr=2e-5 samples/s=8.50 eta=1:10")


def outcomes(simulation):
    return [attempt["outcome"] for attempt in simulation.attempts]
