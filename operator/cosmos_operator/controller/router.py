"""Finds the jobs that a change in the cluster is about. Sends no requests."""

from __future__ import annotations

from cosmos_operator.controller.cache import Cache, News
from cosmos_operator.kube.kinds import JobKey, ObjectKey


class Router:
    """Knows which objects each job looks at beside its own, such as claims and the Jobs of stages that jobs share.

    Args:
        cache: knows to which jobs the maker of an object belongs.
    """

    def __init__(self, cache: Cache) -> None:
        self._cache = cache
        self._interests: dict[JobKey, frozenset[ObjectKey]] = {}
        self._interested: dict[tuple[str, ObjectKey], set[JobKey]] = {}

    def route(self, news: News) -> list[JobKey]:
        """The jobs that own the object or are named in its label; those of its maker; those that look at either."""
        found = set(news.users)
        keys: list[ObjectKey] = [(news.kind, news.name)]
        if news.controller is not None:
            keys.append(news.controller)
            found.update(self._cache.users_of(news.namespace, news.controller))
        for key in keys:
            found |= self._interested.get((news.namespace, key), set())
        return sorted(found)

    def interested(self, namespace: str, key: ObjectKey) -> list[JobKey]:
        """The jobs that look at an object, such as those that wait for the model of another job."""
        return sorted(self._interested.get((namespace, key), set()))

    def note_interest(self, job: JobKey, objects: frozenset[ObjectKey]) -> None:
        """Take note of the objects that a job looks at now, instead of those of before."""
        before = self._interests.get(job, frozenset())
        if objects == before:
            return
        for key in before - objects:
            jobs = self._interested[job.namespace, key]
            jobs.discard(job)
            if not jobs:
                del self._interested[job.namespace, key]
        for key in objects - before:
            self._interested.setdefault((job.namespace, key), set()).add(job)
        if objects:
            self._interests[job] = objects
        else:
            self._interests.pop(job, None)
