"""The models beside the network: what writes prompts, and what judges prompts and videos."""
