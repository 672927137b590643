"""Learning rate over steps. Knows no optimizer, and no torch."""

from __future__ import annotations

from cosmos_worker.config.training import OptimizerConfig

WARMUP_SHARE = 0.05
REFERENCE_WARMUP_STEPS = 2500


def warmup_steps(config: OptimizerConfig, max_steps: int) -> int:
    """Steps of warm-up: as configured, else min(2500, 5 % of max_steps)."""
    if config.warmup_steps is not None:
        return config.warmup_steps
    return min(REFERENCE_WARMUP_STEPS, round(WARMUP_SHARE * max_steps))


def decays(config: OptimizerConfig) -> bool:
    """Whether the learning rates depend on the length of the run, since they fall towards its end."""
    return config.final_factor != 1 and config.decay_start < 1


def describe_schedule(config: OptimizerConfig, max_steps: int) -> str:
    """The schedule in words, such as ``warm-up of 20 steps, constant to step 280, linear to 0 at step 700``."""
    warmup = warmup_steps(config, max_steps)
    if not decays(config):
        return f"warm-up of {warmup} steps, then constant"
    begin = max(warmup, round(config.decay_start * max_steps))
    constant = f"constant to step {begin}, " if begin > warmup else ""
    final = config.learning_rate * config.final_factor
    return f"warm-up of {warmup} steps, {constant}linear to {final:g} at step {max_steps}"


def learning_rate(config: OptimizerConfig, max_steps: int, step: int) -> float:
    """Learning rate of optimizer update number ``step``, counted from 0.

    Linear from start_factor to 1 over the warm-up, constant, then linear to final_factor at max_steps.

    Source: cosmos-predict1 LambdaLinearScheduler (constant after warm-up).
    """
    warmup = warmup_steps(config, max_steps)
    if step < warmup:
        factor = config.start_factor + (1 - config.start_factor) * step / warmup
    else:
        begin = max(warmup, round(config.decay_start * max_steps))
        done = min(1.0, max(0.0, (step - begin) / max(1, max_steps - begin)))
        factor = 1 + (config.final_factor - 1) * done
    return config.learning_rate * factor
