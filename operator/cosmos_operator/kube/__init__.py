"""Kubernetes: the kinds of object that are used, facts about objects, and the API server over HTTP."""
