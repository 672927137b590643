"""An upgrade from the first chart: values that are reused, objects that keep their names, a training that goes on."""

import pytest
import yaml
from support.attempts import outcomes, report
from support.before import chart_with_values_of_before, read, running_job
from support.helm_chart import NAMESPACE, NOTES, SWITCHES, load_chart, render, render_texts

from cosmos_operator.settings import Settings


def merged(values, defaults):
    """Values with the defaults of those that are missing."""
    if not isinstance(values, dict) or not isinstance(defaults, dict):
        return values
    return {
        name: merged(values[name], defaults.get(name)) if name in values else defaults[name]
        for name in {**defaults, **values}
    }


def objects(text):
    """The objects of a template, with the operator's settings as it reads them."""
    found = list(yaml.safe_load_all(text))
    for one in filter(None, found):
        if "settings.yaml" in one.get("data", {}):
            one["data"] = Settings.model_validate(yaml.safe_load(one["data"]["settings.yaml"]))
        if one["kind"] == "Deployment":
            one["spec"]["template"]["metadata"].get("annotations", {}).pop(
                "checksum/settings", None
            )
    return found


@pytest.mark.parametrize("changes", [{}, SWITCHES, {"rbac.scope": "Namespaced"}])
def test_reused_values_that_know_no_newer_ones_give_the_newer_defaults(changes, tmp_path):
    """The objects are those that a new installation with the same values has."""
    chart = chart_with_values_of_before(tmp_path)
    (before,) = read("values.yaml")
    complete = merged(before, load_chart().values)

    reused = render_texts(changes, chart=chart)
    complete_chart = tmp_path / "cosmos" / "values.yaml"
    complete_chart.write_text(yaml.safe_dump(complete))
    expected = render_texts(changes, chart=type(chart).load(tmp_path / "cosmos"))

    assert before != complete, "no value is newer: what does this test prove?"
    assert reused.pop(NOTES) == expected.pop(NOTES)
    for name, text in reused.items():
        assert objects(text) == objects(expected[name]), name


def test_objects_of_before_keep_their_names_and_what_cannot_be_changed():
    def identity(one):
        return one["kind"], one["metadata"].get("namespace"), one["metadata"]["name"]

    switches = {
        "networkPolicy.operator": True,
        "networkPolicy.workers": True,
        "metrics.serviceMonitor.create": True,
        "image.list": True,
        "storage.claim.create": True,
    }
    after = {identity(one): one for one in render(switches)}
    before = {identity(one): one for one in read("manifests.yaml")}
    deployment = ("Deployment", NAMESPACE, "cosmos-operator")
    claim = ("PersistentVolumeClaim", NAMESPACE, "cosmos")

    assert before.keys() <= after.keys()
    assert before[deployment]["spec"]["selector"] == after[deployment]["spec"]["selector"]
    assert before[claim]["spec"] == after[claim]["spec"]
    for one in before.values():
        if one["kind"].endswith("Binding"):
            assert after[identity(one)]["roleRef"] == one["roleRef"]


def test_claim_of_before_stays_when_the_chart_no_longer_makes_it():
    (claim,) = (one for one in read("manifests.yaml") if one["kind"] == "PersistentVolumeClaim")

    assert claim["metadata"]["annotations"]["helm.sh/resource-policy"] == "keep"


def test_training_that_runs_goes_on_to_its_end():
    simulation = running_job()
    workloads = simulation.workload_names()
    running = simulation.running_attempt()["metadata"]["uid"]
    assert outcomes(simulation) == ["Crashed", "Running"]

    decision = simulation.settle()

    assert decision.status is None or decision.status["state"] == "Training"
    assert simulation.workload_names() == workloads, "nothing is made anew, nothing is deleted"
    report(simulation, 20)
    simulation.settle()
    assert simulation.attempts[-1]["endStep"] == 20
    assert simulation.running_attempt()["metadata"]["uid"] == running

    for _ in range(8):
        for (kind, _), one in list(simulation.objects.items()):
            if kind in ("Job", "PyTorchJob") and "status" not in one:
                simulation.succeed(one, step=40, result={"videos": 1})
        simulation.settle()
    assert simulation.status["state"] == "Succeeded"
    assert outcomes(simulation) == ["Crashed", "Succeeded"]
