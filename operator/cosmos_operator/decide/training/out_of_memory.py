"""A training that ran out of memory: held until it is given more, with what it had and what to raise. Pure."""

from __future__ import annotations

from cosmos_operator.api.status import Attempt
from cosmos_operator.decide.pass_state import Pass
from cosmos_operator.plan.edits import spec_key
from cosmos_operator.plan.stages import Stage
from cosmos_worker.config.stages import TrainConfig
from cosmos_worker.config.values import divisors

EXIT_KILLED = 137
"""Exit code of a process that the kernel killed, which it does where the memory of a container runs out."""


def was_given_more(pass_: Pass) -> bool:
    """True if spec has been edited since an attempt that ran out of memory began."""
    last = pass_.attempts[-1]
    return last.spec_key is not None and last.spec_key != spec_key(pass_.training_job)


def describe_lack(pass_: Pass, stage: Stage) -> str:
    """A sentence with the kind of memory that ran out, how much the attempt had, and the field to raise."""
    last = pass_.attempts[-1]
    step = pass_.checkpoints.latest_step if pass_.checkpoints else None
    where = f"step {step}" if step is not None else "its beginning"
    lack = _lack_of_host(pass_) if _is_host(last) else _lack_of_gpu(pass_, stage)
    return (
        f"attempt {last.number} ran out of {lack}; the training then continues from {where}, and with the same "
        f"spec once spec.runPolicy.retry is raised to {_next_retry(pass_)}"
    )


def _is_host(attempt: Attempt) -> bool:
    return attempt.exit_code == EXIT_KILLED or "MemoryError" in attempt.message


def _next_retry(pass_: Pass) -> int:
    return max(pass_.job.spec.run_policy.retry, pass_.retry or 0) + 1


def _lack_of_host(pass_: Pass) -> str:
    compute = pass_.job.spec.compute
    limit = compute.resources.limits.get("memory")
    if limit is None:
        return (
            "host memory (spec.compute.resources.limits.memory is not set, so its node had no more); give a "
            "request and a limit that a larger node meets: memory in spec.compute.resources.requests and .limits"
        )
    return (
        f"host memory: it had spec.compute.resources.limits.memory={limit}, in which "
        f"spec.compute.sharedMemory={compute.shared_memory} is included; raise the limit"
    )


def _lack_of_gpu(pass_: Pass, stage: Stage) -> str:
    assert isinstance(stage.document, TrainConfig)
    trainer, parallel = stage.document.experiment.trainer, stage.document.experiment.parallel
    ways = []
    if trainer.micro_batch_size == "auto":
        ways.append("trainer.micro_batch_size=1 (it was auto)")
    elif trainer.micro_batch_size > 1:
        fewer = divisors(trainer.micro_batch_size)[-2]
        ways.append(f"trainer.micro_batch_size={fewer} (it had {trainer.micro_batch_size})")
    if parallel.activation_checkpointing in ("none", "auto"):
        was = "had none" if parallel.activation_checkpointing == "none" else "was auto"
        ways.append(f"parallel.activation_checkpointing=block (it {was})")
    if parallel.sharding == "none" and stage.nodes * stage.processes_per_node > 1:
        ways.append("parallel.sharding=full (it had none)")
    more = "more GPUs in spec.compute"
    if not ways:
        return f"GPU memory; give {more} with parallel.sharding=full, or GPUs with more memory"
    return f"GPU memory; add {' or '.join(ways)} to spec.training.overrides, or give {more}"
