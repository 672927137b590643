"""``cosmos validate`` and the API server give the same verdict on a file, and read the same values in it."""

from __future__ import annotations

import re
from pathlib import Path
from typing import Any

import pytest
from support.api_client import Api

from cosmos_operator.api.parse import load_file, parse_job
from cosmos_operator.errors import InvalidSpec
from cosmos_operator.plan.job_plan import plan_job

pytestmark = pytest.mark.api_server

BLOCKS = {
    "model": "{name: Tiny, source: {path: /data/model}}",
    "tokenizer": "{name: Tiny-Tokenizer, source: {path: /data/tokenizer}}",
    "embeddings": "{encoder: Tiny-T5, source: {path: /data/encoder}}",
    "dataset": "{name: cubes, source: {path: /data/cubes}}",
    "training": "{experiment: video2world_instruction_push_tiny}",
}
DIGEST = "0123456789abcdef" * 4


def job(metadata: str = "{name: t}", /, **blocks: str) -> str:
    """The YAML of a job whose blocks are the given texts."""
    lines = ["apiVersion: cosmos.dev/v1alpha1", "kind: PostTrainingJob", f"metadata: {metadata}"]
    lines += ["spec:", *(f"  {name}: {text}" for name, text in {**BLOCKS, **blocks}.items())]
    return "\n".join(lines) + "\n"


def compute(text: str) -> str:
    return job(compute=f"{{{text}}}")


def limits(text: str) -> str:
    return compute(f"resources: {{limits: {{{text}}}}}")


def requests(text: str) -> str:
    return compute(f"resources: {{requests: {{{text}}}}}")


def dataset(text: str) -> str:
    return job(dataset=f"{{name: cubes, source: {{path: /data/cubes}}, {text}}}")


def training(text: str) -> str:
    return job(training=f"{{experiment: video2world_instruction_push_tiny, {text}}}")


def scheduling(text: str) -> str:
    return job(scheduling=f"{{{text}}}")


def item(text: str) -> str:
    return job(inference=f"[{{name: a, inputs: [{{prompt: push, conditioning: /x.png}}], {text}}}]")


def prompt(text: str) -> str:
    return job(inference=f"[{{name: a, inputs: [{{prompt: {text}, conditioning: /x.png}}]}}]")


def claim(text: str) -> str:
    return job(storage=f"{{models: {{claimName: new, create: {{{text}}}}}}}")


VALID = {
    "plain": job(),
    # quantities
    **{f"cpu {text}": requests(f"cpu: {text}") for text in (
        '".5"', '"0.5"', "500m", '"5."', "1e3", '"1e3"', "2k", "+5", '"+5"', "0", '"0"', "100u", "1n", "0x10", "010",
        '"1E2"', '"1e-3"', "1_000", "1.0")},
    **{f"memory {text}": limits(f"memory: {text}") for text in (
        "1E", "1Ei", "1Pi", "100M", "1.5Gi", "1073741824", '"1e9"', "128974848000m", "12Ki")},
    "request as its limit in other words":
        compute("resources: {requests: {cpu: 1000m, memory: 1024Mi}, limits: {cpu: 1, memory: 1Gi}}"),
    "hugepages": limits("hugepages-2Mi: 4Mi, memory: 1Gi"),
    "network device": compute("resources: {limits: {rdma/hca: 1}, requests: {rdma/hca: 1}}"),
    "network device of NVIDIA": limits("nvidia.com/hostdev: 1"),
    "GPU of another maker": compute("gpusPerNode: 1, gpuResourceName: amd.com/gpu"),
    "GPU slice": compute("gpusPerNode: 1, gpuResourceName: nvidia.com/mig-1g.10gb"),
    # scalars of YAML 1.1
    **{f"suspend {text}": job(runPolicy=f"{{suspend: {text}}}") for text in
       ("on", "yes", "y", "No", "OFF", "true", "False", '!!bool "true"')},
    **{f"steps {text}": training(f"steps: {text}") for text in
       ("1e3", "1E3", "0100", "0o100", "0x1F", "0b101", "1_000", "1.0", "100.", "+5", "08", "1.5e3", '!!int "5"')},
    **{f"fraction {text}": dataset(f"maxBadFraction: {text}") for text in
       ("1e-2", ".5", "0", "1", "1.", "0.10", "3240286e-210077", "5e-1", "-0.0")},
    "name that looks like octal": dataset("cameraName: 0o9, layout: LeRobot"),
    "camera name that is a date": dataset("cameraName: 2024-01-01, layout: LeRobot"),
    "camera name that is a time": dataset("cameraName: 12:30:45, layout: LeRobot"),
    "camera name with a tag": dataset("cameraName: !!str 5, layout: LeRobot"),
    "name that is a number beyond all": dataset("cameraName: 1e400, layout: LeRobot"),
    "name that is nearly null": dataset("cameraName: nULL, layout: LeRobot"),
    # null and empty blocks
    "null fields": job(runPolicy="{activeDeadlineSeconds: null, maxAttempts: ~}"),
    "empty block": job(compute=""),
    "empty mapping": job(compute="{}", storage="{models: }"),
    "null list": job(inference=""),
    "empty list": job(inference="[]"),
    "null request": requests("cpu: null"),
    "null label of a node": scheduling("nodeSelector: {a: null}"),
    "null queue": scheduling("queueName: null, priorityClassName: "),
    "null inside an item": item("gpus: null, parameters: {seed: null, fps: }"),
    "null image": compute("image: null"),
    # omitted, empty, zero
    "time to live of zero": job(runPolicy="{ttlSecondsAfterFinished: 0}"),
    "no storage class": claim('size: 1Gi, storageClassName: ""'),
    "storage class": claim("size: 1Gi, storageClassName: fast.ssd"),
    "default storage class": claim("size: 1Gi"),
    # names and labels
    "labels of nodes": scheduling('nodeSelector: {"a.b/C_d.e-f": "X_y.z-1", zone: ""}'),
    "toleration of all": scheduling("tolerations: [{operator: Exists}]"),
    "toleration with Kubernetes' empty texts":
        scheduling('tolerations: [{key: "", operator: Exists, value: "", effect: ""}]'),
    "toleration": scheduling("tolerations: [{key: a/b, value: c, effect: NoSchedule}]"),
    "toleration of an empty value": scheduling('tolerations: [{key: a, value: ""}]'),
    "queue with a dot": scheduling("queueName: team.a"),
    "name of forty": job(f"{{name: {'a' * 40}}}"),
    "generated name": job("{generateName: push-}"),
    "generated name of thirty-five": job(f"{{generateName: {'a' * 35}}}"),
    "name wins over a generated one": job(f"{{name: t, generateName: {'a' * 50}}}"),
    "labels and annotations": job('{name: t, labels: {a: "7", b.c/d: ""}, annotations: {A.b/c: "x y"}}'),
    "null label": job("{name: t, labels: {a: null}, annotations: }"),
    "finalizers": job("{name: t, finalizers: [a.b/c]}"),
    "owner": job("{name: t, ownerReferences: [{apiVersion: v1, kind: A, name: b, uid: c, controller: true}]}"),
    "no time of creation": job("{name: t, creationTimestamp: null}"),
    "time of creation": job('{name: t, creationTimestamp: "2026-01-31T12:00:00Z"}'),
    **{f"image {text}": compute(f"image: {text}") for text in (
        "worker", "lab/worker:1.2", "Registry.example.com/lab/worker:latest", "localhost:5000/a/b__c:x_y",
        f"a.b/c@sha256:{DIGEST}", f"a.b/c:v1@sha256:{DIGEST}", "'[::1]:5000/a/b'", "MyOrg/worker")},
    # texts
    "line ends of Windows": job().replace("\n", "\r\n"),
    "byte order mark": "\ufeff" + job(),
    "tab before a comment": job(compute="{}\t# none"),
    "tab after a colon": job().replace("kind: ", "kind:\t"),
    "comments and directives": "%YAML 1.1\n---\n# a job\n" + job() + "...\n",
    "JSON": '{"apiVersion": "cosmos.dev/v1alpha1", "kind": "PostTrainingJob", "metadata": {"name": "t"}, "spec": '
            '{"dataset": {"source": {"path": "/a"}}, "training": {"experiment": '
            '"video2world_instruction_bridge_57frames"}}}\n',
    "anchors": job(model="{name: Tiny, source: &a {path: /data/model}}", tokenizer="{name: T, source: *a}"),
    "merged blocks": job(compute="{<<: {nodes: 1}, processesPerNode: 1}"),
    "empty documents": "---\n" + job() + "---\n---\n",
    "two jobs": job() + "---\n" + job("{name: u}"),
    "another kind beside it": job() + "---\napiVersion: v1\nkind: Secret\nmetadata: {name: a}\n",
    "prompt in quotes": prompt('"no"'),
    "prompt in many lines": prompt('"push\\n  it\\u00e9"'),
    "overrides": training("overrides: [optimizer.learning_rate=1e-5, trainer.micro_batch_size=2]"),
}  # fmt: skip

INVALID = {
    # quantities
    "fraction without quotes": requests("cpu: 0.5"),
    "fraction without quotes and zero": requests("cpu: .5"),
    **{f"memory {text}": limits(f"memory: {text}") for text in (
        "-8", '"-8"', "8 Gi", "8gi", "8GB", "1K", '"1e3Mi"', '"."', '""', '" 8Gi"', "1ki", "0x10Gi", "true", "[1]",
        "1.1.1", "1i", '"1 000"', "12:30", "9223372036854775808")},
    "negative shared memory": compute("sharedMemory: -8"),
    "negative shared memory in quotes": compute('sharedMemory: "-8"'),
    "claim without room": claim("size: 0"),
    "claim without room in units": claim("size: 0Gi"),
    "claim of negative size": claim("size: -5"),
    "claim without size": claim("accessMode: ReadWriteOnce"),
    "request above its limit": compute("resources: {requests: {memory: 2Gi}, limits: {memory: 2000M}}"),
    "request above its limit as a number": compute("resources: {requests: {cpu: 3}, limits: {cpu: 2500m}}"),
    # resources
    **{f"resource {text}": limits(f"{text}: 1") for text in (
        "Memory", "meomry", "CPU", "gpu", "hugepages", "hugepages-2MB", '"a b/c"', "a/b/c", "/gpu", "storage",
        "my_domain/x", '"cpu "', '""')},
    **{f"GPU {text}": limits(f"{text}: 4") for text in (
        "nvidia.com/gpu", "amd.com/gpu", "gpu.intel.com/i915", "gpu.intel.com/xe", "nvidia.com/mig-1g.5gb",
        "nvidia.com/gpu.shared", "habana.ai/gaudi", "google.com/tpu", "aws.amazon.com/neuroncore", "aliyun.com/gpu-mem",
        "cloud.example.com/vGPU")},
    "GPU request beside gpusPerNode": compute("gpusPerNode: 2, resources: {requests: {nvidia.com/gpu: 4}}"),
    "device of gpuResourceName":
        compute("gpusPerNode: 2, gpuResourceName: a.b/card, resources: {limits: {a.b/card: 2}}"),
    "device request without limit": requests("rdma/hca: 1"),
    "device request below its limit": compute("resources: {requests: {rdma/hca: 1}, limits: {rdma/hca: 2}}"),
    **{f"gpuResourceName {text}": compute(f"gpusPerNode: 1, gpuResourceName: {text}") for text in
       ('"nvidia.com/gpu "', "gpu", '""', "cpu", "nvidia.com/", "NVIDIA.com/gpu", "a/b/c")},
    # types
    "integer in quotes": compute('nodes: "2"'),
    "boolean in quotes": job(outputs='{report: "yes"}'),
    "boolean as a number": job(outputs="{report: 1}"),
    "number as a boolean": compute("nodes: yes"),
    "float for an integer": compute("nodes: 1.5"),
    "fraction in quotes": dataset('maxBadFraction: "0.1"'),
    "infinity": dataset("maxBadFraction: .inf"),
    "not a number": dataset("maxBadFraction: .nan"),
    "name that is a version": job(dataset="{name: 1.10, source: {path: /a}}"),
    "name that is a number": job(dataset="{name: 2024, source: {path: /a}}"),
    "name that is Norway": job("{name: no}"),
    "name that is y": job("{name: y}"),
    "name that is null": job("{name: null}"),
    "prompt that is a boolean": prompt("no"),
    "prompt that is a number": prompt("12"),
    "list for a block": job(compute="[]"),
    "text for a block": job(compute="none"),
    "mapping for a list": job(inference="{a: b}"),
    "text for a list": training("overrides: a=b"),
    "block for a text": training("overrides: [optimizer.learning_rate: 1e-5]"),
    "number for a text": training("overrides: [5]"),
    "override without a value": training("overrides: [optimizer.learning_rate]"),
    "override with a space": training('overrides: ["optimizer.learning_rate = 1e-5"]'),
    "null in a list": training("overrides: [null]"),
    "null item": job(inference="[null]"),
    "required field that is null": job(training="{experiment: null}"),
    "required block that is empty": job(training=""),
    "wrong number with a tag": compute("nodes: !!int x"),
    # keys
    "key given twice": job() + "  outputs: {name: a}\n  outputs: {name: b}\n",
    "key given twice in one line": compute("nodes: 1, nodes: 2"),
    "key given twice, once in quotes": compute("nodes: 1, 'nodes': 2"),
    "key on top given twice": job() + "spec: {}\n",
    "key that is a list": job() + "  {[a]: 1}\n",
    "unknown field": scheduling("affinity: {}"),
    "unknown field that is null": scheduling("affinity: null"),
    "unknown field on top": job() + "sepc: {}\n",
    "unknown field of metadata": job("{name: t, label: {}}"),
    "unknown field deep inside": item("parameters: {Steps: 4}"),
    "field that YAML takes for a boolean": compute("y: 1"),
    "field of another case": compute("Nodes: 1"),
    "bound below": compute("nodes: 0"),
    "bound above": compute("nodes: 1e9"),
    "unknown word": dataset("layout: bridge"),
    # names and labels
    "name of forty-one": job(f"{{name: {'a' * 41}}}"),
    "name with a dot": job("{name: a.b}"),
    "name in capitals": job("{name: Push}"),
    "no name": job("{}"),
    "empty name": job('{name: ""}'),
    "generated name that is too long": job(f"{{generateName: {'a' * 36}}}"),
    "generated name in capitals": job("{generateName: Push-}"),
    "generated name that begins with a digit": job("{generateName: 1-}"),
    "label that is a number": job("{name: t, labels: {team: 7}}"),
    "label with a space": job('{name: t, labels: {team: "a b"}}'),
    "label of 64": job(f"{{name: t, labels: {{team: {'a' * 64}}}}}"),
    "key of a label with a space": job('{name: t, labels: {"a b": c}}'),
    "key of a label with two parts": job("{name: t, labels: {a/b/c: d}}"),
    "annotation that is a boolean": job("{name: t, annotations: {a: true}}"),
    "key of an annotation": job('{name: t, annotations: {"a b": c}}'),
    "labels in a list": job("{name: t, labels: [a]}"),
    "finalizer with a space": job("{name: t, finalizers: ['a b']}"),
    "owner without a name": job("{name: t, ownerReferences: [{kind: A, apiVersion: v1, uid: a}]}"),
    "time of creation in words": job("{name: t, creationTimestamp: yesterday}"),
    "selector with a space in its key": scheduling('nodeSelector: {"my label": x}'),
    "selector with a foreign letter": scheduling('nodeSelector: {zone: "z\u00fcrich"}'),
    "selector that is a boolean": scheduling("nodeSelector: {gpu: true}"),
    "selector with a long key": scheduling(f"nodeSelector: {{{'a' * 64}: x}}"),
    "selector with a capital domain": scheduling("nodeSelector: {A.b/c: x}"),
    "key of a taint": scheduling('tolerations: [{key: "a b", operator: Exists}]'),
    "value of a taint": scheduling("tolerations: [{key: a, value: b c}]"),
    "toleration without key": scheduling("tolerations: [{value: a}]"),
    "empty queue": scheduling('queueName: ""'),
    "empty priority": scheduling('priorityClassName: ""'),
    "queue with two dots": scheduling("queueName: team..a"),
    "queue that ends with a dot": scheduling("queueName: a."),
    "claim with two dots": job(storage='{models: {claimName: "a..b"}}'),
    "storage class in capitals": claim("size: 1Gi, storageClassName: Fast"),
    **{f"image {text}": compute(f"image: {text}") for text in (
        '"Registry.example.com/Cosmos Worker:latest"', "lab/Worker", "Worker", '""', "lab/worker:",
        "lab/worker@sha256:abc",
        "lab//worker", "lab/worker:a:b", "https://lab/worker", f"lab/worker@sha256:{DIGEST.upper()}", "-a/b", "a/b_",
        f"lab/worker:{'a' * 129}")},
    # texts
    "tab that indents": job() + "  runPolicy:\n  \tmaxAttempts: 3\n",
    "no YAML": job() + "  a: [\n",
    "a colon too many": job() + "  outputs: name: b\n",
    "control character": prompt("x\x07y"),
    "anchor that is not there": job(compute="*nowhere"),
    "anchor inside itself": job(compute="&a {nodes: *a}"),
    "second job is wrong": job() + "---\n" + job("{name: u}", compute="{nodes: 0}"),
    "another version": job().replace("v1alpha1", "v1"),
    "another kind": job().replace("PostTrainingJob", "PostTrainingjob"),
    "no kind": job().replace("kind: PostTrainingJob\n", ""),
    "no version": job().replace("apiVersion: cosmos.dev/v1alpha1\n", ""),
    "no specification": job().partition("spec:")[0],
}  # fmt: skip

OPERATOR_ONLY = {
    "unknown experiment": job(training="{experiment: video2world_push}"),
    "override of nothing": training("overrides: [optimizer.lr=1e-5]"),
    "batch that does not divide": compute("processesPerNode: 7"),
    "model of another family":
        job(model="{name: Cosmos-Predict2.5-2B}", training="{experiment: video2world_instruction_bridge_57frames}"),
    "camera of another layout": dataset("camera: 1, layout: Videos"),
    "item named twice in parameters": item("parameters: {numPixelFrames: 1}"),
}  # fmt: skip
"""Rules that depend on the experiment, which the API server does not know: the operator refuses the job."""


def validate(text: str, folder: Path) -> tuple[Any, str]:
    """The jobs of a file, or None, and what ``cosmos validate`` says against it."""
    path = folder / "job.yaml"
    path.write_bytes(text.encode())
    try:
        return load_file(path).jobs, ""
    except InvalidSpec as error:
        return None, str(error)


def admit(api: Api, text: str) -> tuple[list[Any] | None, str]:
    """The jobs of a file as the API server would store them, or None, and what it says against it."""
    found = []
    # as kubectl splits a file
    for part in re.split(r"(?:^|\n)---[ \t]*\r?(?=\n|$)", text.removeprefix("\ufeff")):
        if not re.sub(r"(?m)^(#.*|%.*|\.\.\.)$", "", part).strip() or "kind: Secret" in part:
            continue
        response = api.pool.request(
            "POST",
            f"{api.url}{api.jobs}?dryRun=All&fieldValidation=Strict",
            body=part.encode(),
            headers={"Content-Type": "application/yaml", "Accept": "application/json"},
            timeout=20,
        )
        body = response.json()
        if response.status != 201:
            return None, body["message"]
        found.append(body)
    return found, ""


@pytest.mark.parametrize("name", VALID)
def test_both_admit(api: Api, tmp_path: Path, name: str) -> None:
    stored, refusal = admit(api, VALID[name])
    jobs, problems = validate(VALID[name], tmp_path)

    assert stored is not None, refusal
    assert jobs is not None, problems
    assert [one.spec for one in jobs] == [parse_job(one).spec for one in stored]
    assert not any(plan_job(one).problems for one in stored)


@pytest.mark.parametrize("name", INVALID)
def test_both_refuse(api: Api, tmp_path: Path, name: str) -> None:
    stored, _ = admit(api, INVALID[name])
    jobs, problems = validate(INVALID[name], tmp_path)

    assert (stored, jobs) == (None, None)
    assert re.search(r"line \d+", problems)


@pytest.mark.parametrize("name", OPERATOR_ONLY)
def test_operator_refuses_what_the_api_server_cannot_know(
    api: Api, tmp_path: Path, name: str
) -> None:
    stored, refusal = admit(api, OPERATOR_ONLY[name])
    jobs, problems = validate(OPERATOR_ONLY[name], tmp_path)

    assert stored is not None, refusal
    assert jobs is None
    assert plan_job(stored[0]).problems
    assert problems
