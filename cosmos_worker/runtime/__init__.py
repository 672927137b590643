"""How a process of the worker starts, knows its machine and its peers, reports, and ends."""
