"""The real operator on a model of the API server, in simulated time, with crashes and faults at chosen moments.

What runs is the operator's own code from the work queue down to the meaning of HTTP answers: lease, informers, cache,
passes, decisions, requests. What is modelled is what answers it: ``model_server`` (objects, versions, watches,
deletion), ``workloads`` (garbage collector, Job controller, nodes) and ``model_client`` (the network between).
"""
