"""Parts of the benchmark ``operator_at_scale.py``: a control plane, simulated nodes, jobs, and what is measured."""
