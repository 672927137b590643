"""Models beside the network: the prompt upsampler, and the guardrails of prompts and frames."""
