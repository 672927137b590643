"""Secrets that the pods of a stage read, and those of them that must exist."""

from __future__ import annotations

import pytest
from support.jobs import make_job

from cosmos_operator.plan.pod import build_pod_template
from cosmos_operator.plan.render import stage_name
from cosmos_operator.plan.stages import plan_stages
from cosmos_operator.settings import Settings

INSTALLATION = {
    "workerImage": "worker:1",
    "wandbSecret": {"name": "wb", "key": "api-key"},
    "mlflowSecret": {"name": "ml", "key": "tracking-uri"},
    "huggingFaceSecret": {"name": "hf", "key": "token"},
    "s3Secret": {"name": "store"},
}
TRACKERS = {"WANDB_API_KEY": ("wb", "api-key", True), "MLFLOW_TRACKING_URI": ("ml", "tracking-uri", True)}  # fmt: skip
KEYS = ("AWS_ACCESS_KEY_ID", "AWS_SECRET_ACCESS_KEY", "AWS_SESSION_TOKEN")
STORE = {name: ("store", name, True) for name in KEYS}
OWN_STORE = {name: ("bucket", name, name == "AWS_SESSION_TOKEN") for name in KEYS}
OWN = {"credentials.huggingFace": {"name": "mine", "key": "token"}}


def secrets_of(kind: str, changes: dict | None, settings: dict) -> dict[str, tuple[str, str, bool]]:
    job = make_job(changes)
    stage = next(stage for stage in plan_stages(job) if stage.kind == kind)
    pod = build_pod_template(job, stage, config_map="c", settings=Settings.model_validate(settings))
    found = {}
    for entry in pod["spec"]["containers"][0]["env"]:
        reference = entry.get("valueFrom", {}).get("secretKeyRef")
        if reference:
            found[entry["name"]] = (
                reference["name"],
                reference["key"],
                reference.get("optional", False),
            )
    return found


@pytest.mark.parametrize(
    ("kind", "changes", "expected"),
    [
        ("train", None, TRACKERS),
        ("train", OWN, TRACKERS),
        ("fetch-model", None, {"HF_TOKEN": ("hf", "token", True), **STORE}),
        ("prepare-dataset", OWN, {"HF_TOKEN": ("mine", "token", False), **STORE}),
        ("generate", OWN, {}),
        (
            "fetch-model",
            {"credentials.s3": {"name": "bucket"}},
            {"HF_TOKEN": ("hf", "token", True), **OWN_STORE},
        ),
        ("train", {"credentials.s3": {"name": "bucket"}}, TRACKERS),
    ],
)
def test_pods_read_the_secrets_of_their_stage_only(kind, changes, expected):
    assert secrets_of(kind, changes, INSTALLATION) == expected


def test_installation_without_secrets_gives_none():
    assert secrets_of("train", None, {"workerImage": "worker:1"}) == {}
    assert secrets_of("fetch-model", None, {"workerImage": "worker:1"}) == {}


def test_jobs_with_other_keys_share_no_stage_that_fetches():
    def names(changes: dict | None) -> dict[str, str]:
        job = make_job(changes)
        return {stage.name: stage_name(job, stage, Settings()) for stage in plan_stages(job)}

    without, one, other = (
        names(changes and {"credentials.s3": changes})
        for changes in (None, {"name": "bucket"}, {"name": "other"})
    )

    for stage in ("fetch-model", "prepare-dataset"):
        assert len({without[stage], one[stage], other[stage]}) == 3
    assert without["embed-text"] == one["embed-text"]
