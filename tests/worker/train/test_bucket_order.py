"""Batches of one bucket each, as a function of seed and step."""

from __future__ import annotations

import random
import time

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from cosmos_worker.errors import DataError
from cosmos_worker.train.order import BucketOrder, DataOrder
from cosmos_worker.train.trainer import micro_batch_positions


def make_order(sizes: list[int], batch: int, seed: int = 3) -> BucketOrder:
    """Buckets of these sizes; sample i is of bucket i % n as long as that has room."""
    total = sum(sizes)
    numbers = torch.randperm(total, generator=torch.Generator().manual_seed(1))
    members = {f"{i}": part.sort().values for i, part in enumerate(numbers.split(sizes))}
    return BucketOrder(DataOrder(total, batch, seed, "d"), members)


def bucket_of(order: BucketOrder, sample: int) -> str:
    return next(name for name, own in order.members.items() if sample in own.tolist())


@st.composite
def orders(draw: st.DrawFn) -> BucketOrder:
    batch = draw(st.integers(1, 6))
    sizes = draw(st.lists(st.integers(batch, 4 * batch + 5), min_size=1, max_size=4))
    return make_order(sizes, batch, draw(st.integers(0, 2**31 - 1)))


@settings(deadline=None, max_examples=60)
@given(order=orders())
def test_every_batch_is_of_one_bucket_and_every_window_seen_once_an_epoch(
    order: BucketOrder,
) -> None:
    seen: dict[str, list[int]] = {name: [] for name in order.members}
    steps = 3 * order.whole.num_samples // order.whole.global_batch_size + 1
    for step in range(steps):
        batch = order.batch(step)
        assert len(batch) == order.whole.global_batch_size
        buckets = {bucket_of(order, sample) for sample in batch}
        assert buckets == {order.bucket(step)}
        seen[buckets.pop()] += batch

    for name, own in order.members.items():
        size = len(own)
        whole_epochs = [seen[name][i : i + size] for i in range(0, len(seen[name]), size)]
        assert len(whole_epochs) >= 2
        for epoch in whole_epochs[:-1]:
            assert sorted(epoch) == own.tolist()
        last = whole_epochs[-1]
        assert len(set(last)) == len(last)


@settings(deadline=None, max_examples=60)
@given(order=orders(), epochs=st.integers(1, 5))
def test_buckets_have_their_share_of_the_batches_after_every_epoch(
    order: BucketOrder, epochs: int
) -> None:
    size = order.whole.global_batch_size
    wanted = {name: epochs * len(own) // size for name, own in order.members.items()}
    counts = dict.fromkeys(order.members, 0)
    for step in range(sum(wanted.values())):
        counts[bucket_of(order, order.batch(step)[0])] += 1

    assert counts == wanted


@settings(deadline=None, max_examples=40)
@given(order=orders(), seed=st.integers(0, 100))
def test_batch_is_a_function_of_the_step_alone(order: BucketOrder, seed: int) -> None:
    forward = [order.batch(step) for step in range(30)]
    steps = list(range(30))
    random.Random(seed).shuffle(steps)
    fresh = BucketOrder(order.whole, order.members)

    assert {step: fresh.batch(step) for step in steps} == dict(enumerate(forward))


@settings(deadline=None, max_examples=40)
@given(num_samples=st.integers(4, 30), batch=st.integers(1, 4), seed=st.integers(0, 1000))
def test_a_single_bucket_has_the_order_of_a_dataset_without_buckets(
    num_samples: int, batch: int, seed: int
) -> None:
    plain = DataOrder(num_samples, batch, seed, "d")
    bucketed = BucketOrder(plain, {None: torch.arange(num_samples)})

    assert [bucketed.batch(i) for i in range(40)] == [plain.batch(i) for i in range(40)]


@pytest.mark.parametrize("processes", [1, 2, 4])
def test_shares_of_the_processes_make_up_the_batch(processes: int) -> None:
    order = make_order([9, 17], 8)
    for step in range(10):
        batch = order.batch(step)
        shares = [micro_batch_positions(8, 2, rank, processes) for rank in range(processes)]
        seen = [batch[i] for share in shares for micro in share for i in micro]
        assert seen == batch


def test_order_is_the_same_in_every_version() -> None:
    order = BucketOrder(
        DataOrder(7, 2, 3, "d"), {"a": torch.tensor([0, 2, 4]), "b": torch.tensor([1, 3, 5, 6])}
    )

    assert [order.batch(step) for step in range(7)] == [
        [1, 3], [4, 0], [6, 5], [3, 6], [2, 2], [5, 1], [4, 0],
    ]  # fmt: skip


def test_epochs_differ_in_the_order_of_their_buckets() -> None:
    order = make_order([16, 16], 4)
    epochs = [
        tuple(bucket_of(order, order.batch(8 * epoch + i)[0]) for i in range(8))
        for epoch in range(6)
    ]

    assert len(set(epochs)) > 1
    assert all(sorted(epoch) == ["0"] * 4 + ["1"] * 4 for epoch in epochs)


def test_far_steps_take_no_longer_than_near_ones() -> None:
    order = make_order([5, 7, 11], 2)
    started = time.process_time()

    assert len(order.batch(10**9)) == 2
    assert time.process_time() - started < 1


def test_bucket_smaller_than_a_batch_is_named() -> None:
    message = (
        r"bucket 1 has 3 training windows, fewer than one batch of 4; remove the bucket, lower"
    )
    with pytest.raises(DataError, match=message):
        make_order([9, 3], 4)


def test_buckets_are_described() -> None:
    assert list(make_order([9, 3], 3).describe()) == [
        "bucket=0 windows=9 share_of_batches=0.750 dropped=0",
        "bucket=1 windows=3 share_of_batches=0.250 dropped=0",
    ]
