"""The notes after installing: resources that the cluster lacks, the jobs that need them, and advice."""

import pytest
from support.helm_chart import NAMESPACE, render_notes

PYTORCHJOB = "kubeflow.org/v1/PyTorchJob"
TRAINJOB = "trainer.kubeflow.org/v1alpha1/TrainJob"
KUEUE = "kueue.x-k8s.io/v1beta1/LocalQueue"


@pytest.mark.parametrize(("apis", "values", "said", "unsaid"), [
    ([], {}, ["PyTorchJob: MISSING", "standalone?ref=v1.9.4", "backend.type Auto"], "alpine"),
    ([PYTORCHJOB], {}, ["PyTorchJob: yes", "alpine:3.10", "restricted"], "MISSING"),
    ([], {}, ["TrainJob: no", "Kueue: no"], "runtime.create"),
    ([TRAINJOB], {}, ["TrainJob: yes", "--set trainer.runtime.create=true"], "TrainJob: no"),
    ([TRAINJOB], {"trainer.runtime.create": True}, ["TrainJob: yes"], "--set trainer"),
    ([KUEUE], {}, ["Kueue: yes", "spec.scheduling.queueName", "kubeflow.org/pytorchjob"], "Kueue: no"),
    ([], {"storage.claim.create": False}, ["no claim was created", "--set storage.claim.create=true"], "outlives"),
    ([], {}, ["no claim was created", "{ReadWriteOnce}"], "outlives"),
    ([], {"storage.claim.create": True}, ["claim cosmos (500Gi, ReadWriteMany)"], "no claim"),
    ([], {"storage.claim": {"create": True, "name": "x"}}, ["name it in spec.storage"], "no claim"),
    ([], {"crds.install": False}, ["InferenceJob: MISSING", "cosmos crd | kubectl"], "!"),
    (["cosmos.dev/v1alpha1/PostTrainingJob"], {"crds.install": False}, ["or InferenceJob: MISSING"], "!"),
    (["cosmos.dev/v1alpha1/PostTrainingJob", "cosmos.dev/v1alpha1/InferenceJob"], {"crds.install": False}, [],
     "InferenceJob: MISSING"),
    ([], {}, ["all namespaces", "No registry is given", "  cosmos-operator:0.1.0\n"], "InferenceJob: MISSING"),
    ([], {"global.imageRegistry": "r"}, ["  r/cosmos-worker-cpu:0.1.0"], "No registry"),
    ([], {"watchNamespaces": ["a", "b"]}, ["the namespaces a, b.", "kubectl -n a apply"], "all names"),
    ([], {"rbac.scope": "Namespaced"}, [f"the namespaces {NAMESPACE}."], "all namespaces"),
])  # fmt: skip
def test_notes(apis, values, said, unsaid):
    notes = render_notes(values, apis)

    for text in said:
        assert text in notes
    assert unsaid not in notes


def test_notes_show_the_first_commands():
    notes = render_notes()

    for command in (
        "apply -f",
        "get ptj -w",
        "logs -f svc/",
        "describe ptj/",
        "get ij -w",
        "wait --for=condition",
    ):
        assert f"kubectl -n {NAMESPACE} {command}" in notes
    assert all(len(line) <= 120 for line in notes.splitlines())
    assert "\n\n\n" not in notes
