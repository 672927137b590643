"""Names, labels and folders."""

import re

from hypothesis import given, settings
from hypothesis import strategies as st

from cosmos_operator.plan.names import folder_name, labels, object_name, shorten

LABEL = re.compile(r"^[a-z0-9]([-a-z0-9]*[a-z0-9])?$")
dns_names = st.text("abc-09", max_size=38).map(lambda middle: f"a{middle}z")
keys = st.text("0123456789abcdef", min_size=12, max_size=12)
few = settings(max_examples=30, deadline=None)


@few
@given(job=dns_names, item=dns_names, key=keys)
def test_object_names_are_dns_labels(job, item, key):
    name = object_name(job, f"generate-{item}", key)

    assert len(name) <= 63
    assert LABEL.match(name)


@few
@given(job=dns_names, other=dns_names, key=keys)
def test_object_names_of_two_items_differ(job, other, key):
    assert object_name(job, "generate-a", key) != object_name(job, "generate-b", key)
    assert (object_name(job, "publish", key) == object_name(other, "publish", key)) == (
        job == other
    )


@few
@given(name=st.text(max_size=200), key=keys)
def test_folder_names_are_one_safe_path_component(name, key):
    folder = folder_name(name, key)

    assert re.fullmatch(r"[A-Za-z0-9._-]{13,93}", folder)
    assert folder.endswith(f"-{key}")


def test_long_names_are_cut_with_a_digest():
    assert shorten("a" * 63) == "a" * 63
    assert shorten("a" * 64) == "a" * 54 + "-ffe054fe"
    assert shorten("a" * 64) != shorten("a" * 65)


def test_shared_objects_carry_no_job():
    assert "cosmos.dev/job" not in labels("PostTrainingJob", None, "embed-text", "0123")
    assert labels("PostTrainingJob", "push", "train", "0123")["cosmos.dev/job"] == "push"
    ours = labels("InferenceJob", "push", "report", "0123")
    assert (ours.get("cosmos.dev/job"), ours["cosmos.dev/inference-job"]) == (None, "push")
