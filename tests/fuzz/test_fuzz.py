"""A short part of ``make fuzz``, and that faults of every kind are found."""

import os
import signal
import time

import jsonschema
import pytest
from support.api_client import Api
from support.fakekube import FakeKube

from cosmos_operator.api.crd import build_crds
from fuzz import limits, resources
from fuzz.limits import try_all
from fuzz.targets import TARGETS

NUMBER = {"jobs": 16, "inference-jobs": 16, "videos": 20, "weights": 30, "images": 30}
"""Inputs of slow targets; of others there are 60."""


@pytest.mark.parametrize("name", TARGETS)
def test_mutated_inputs_are_taken_or_refused_in_a_line(name, tmp_path):
    inputs = TARGETS[name].inputs(tmp_path, 2026, NUMBER.get(name, 60))

    outcomes = try_all(TARGETS[name].attempt, inputs, tmp_path)

    assert outcomes.faults == []
    assert sum(outcomes.counts.values()) == len(inputs)
    assert outcomes.counts["accepted"], "the examples themselves are read"
    assert len(outcomes.counts) == 2 or name in ("jsonl",), "some are refused"


def _raise(_):
    raise TypeError("planted")


PLANTED = {
    "TypeError: 'planted'": _raise,
    "more than 64 MiB of memory": lambda _: str(len(b"x" * (256 << 20))),
    "ended by signal SIGSEGV": lambda _: os.kill(os.getpid(), signal.SIGSEGV),
    "ended with code 3": lambda _: os._exit(3),
    "refused without a word": lambda _: " ",
    "refused with the character '\\x1b'": lambda _: "a\x1b[2J",
    "refused with 5000 characters": lambda _: "x" * 5000,
}


@pytest.mark.parametrize("what", PLANTED)
def test_planted_fault_is_found_and_the_other_inputs_are_tried(what, tmp_path):
    def attempt(value, folder):
        return PLANTED[what](folder) if value == 1 else "accepted"

    outcomes = try_all(attempt, [0, 1, 2], tmp_path, memory=64 << 20)

    assert [fault.number for fault in outcomes.faults] == [1]
    assert what in outcomes.faults[0].what
    assert outcomes.counts == {"accepted": 2}


def test_endless_input_is_found(tmp_path, monkeypatch):
    monkeypatch.setattr(limits, "CPU_S", 0)

    def attempt(value, folder):
        while value == 1:
            pass
        return "accepted"

    outcomes = try_all(attempt, [0, 1, 2], tmp_path)

    assert [fault.number for fault in outcomes.faults] == [1]
    assert "s of processor time" in outcomes.faults[0].what


def test_silent_input_is_found(tmp_path, monkeypatch):
    monkeypatch.setattr(limits, "WALL_S", 1.0)

    outcomes = try_all(lambda value, folder: time.sleep(300) or "", [0], tmp_path)

    assert [fault.what for fault in outcomes.faults] == ["no answer within 1 s"]


def test_same_seed_gives_the_same_inputs(tmp_path):
    for name in ("jobs", "archives"):
        first, second, other = (TARGETS[name].inputs(tmp_path, seed, 30) for seed in (1, 1, 2))
        if name == "jobs":
            assert first == second
        assert first != other


# --- resources, on the API server in this process ----------------------------------------------


SCHEMAS = {
    one["spec"]["names"]["plural"]: one["spec"]["versions"][0]["schema"]["openAPIV3Schema"]
    for one in build_crds()
}


class CheckingApi(Api):
    """Refuses what the schema of the CustomResourceDefinition does not allow, which the fake API server takes."""

    def call(self, verb, path, body=None, kind="json", **query):
        if verb == "POST":
            checker = jsonschema.Draft7Validator(SCHEMAS[path.rpartition("/")[2]])
            if (error := next(checker.iter_errors(body), None)) is not None:
                return 422, {"message": error.message[:1000]}
        return super().call(verb, path, body, kind, **query)


def test_jobs_get_an_answer_on_the_fake_api_server(tmp_path):
    with FakeKube(images=("cosmos-worker:test", "cosmos-worker-cpu:test")) as kube:
        for crd in build_crds():
            kube.install_crd(crd)
        api = CheckingApi(kube.url)
        api.namespace = "default"
        kubeconfig = kube.write_kubeconfig(tmp_path / "kubeconfig")
        with resources.operated(api, kubeconfig, tmp_path):
            answers = resources.try_jobs(api, 20, 1)

    assert answers.faults == []
    assert sum(answers.counts.values()) == 20
    assert len(answers.counts) == 3, (
        "some are refused by the schema, some by the operator, some taken"
    )
