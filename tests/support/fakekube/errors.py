"""Errors of the API server: Status objects, with the texts of the real one."""

from __future__ import annotations

from typing import Any


class ApiError(Exception):
    """A refused request."""

    def __init__(
        self, code: int, reason: str, message: str, details: dict[str, Any] | None = None
    ) -> None:
        super().__init__(message)
        self.code, self.reason, self.message, self.details = code, reason, message, details or {}

    def to_status(self) -> dict[str, Any]:
        """The body of the answer."""
        return {
            "kind": "Status",
            "apiVersion": "v1",
            "metadata": {},
            "status": "Failure",
            "message": self.message,
            "reason": self.reason,
            "details": self.details,
            "code": self.code,
        }


def _details(group: str, kind: str, name: str) -> dict[str, Any]:
    values = {"name": name, "group": group, "kind": kind}
    return {key: value for key, value in values.items() if value}


def _qualified(group: str, plural: str) -> str:
    return f"{plural}.{group}" if group else plural


def not_found(group: str, plural: str, name: str) -> ApiError:
    """No object of that name."""
    message = f'{_qualified(group, plural)} "{name}" not found'
    return ApiError(404, "NotFound", message, _details(group, plural, name))


def no_such_path() -> ApiError:
    """A group, version or resource that is not served."""
    return ApiError(404, "NotFound", "the server could not find the requested resource")


def already_exists(group: str, plural: str, name: str) -> ApiError:
    """The name is taken."""
    message = f'{_qualified(group, plural)} "{name}" already exists'
    return ApiError(409, "AlreadyExists", message, _details(group, plural, name))


def conflict(group: str, plural: str, name: str, why: str) -> ApiError:
    """The object is not what the request expects."""
    message = f'Operation cannot be fulfilled on {_qualified(group, plural)} "{name}": {why}'
    return ApiError(409, "Conflict", message, _details(group, plural, name))


def immutable(kind: str, name: str, field: str, value: str) -> ApiError:
    """A change of a field that never changes."""
    text = f'{kind} "{name}" is invalid: {field}: Invalid value: "{value}": field is immutable'
    return ApiError(422, "Invalid", text, {"name": name, "kind": kind})


def forbidden(group: str, plural: str, name: str, why: str) -> ApiError:
    """An admission rule says no."""
    message = f'{_qualified(group, plural)} "{name}" is forbidden: {why}'
    return ApiError(403, "Forbidden", message, _details(group, plural, name))


def bad_request(message: str) -> ApiError:
    """A request that cannot be read."""
    return ApiError(400, "BadRequest", message)


def unknown_format(accepted: tuple[str, ...]) -> ApiError:
    """A patch of a kind that the resource does not take."""
    text = "the body of the request was in an unknown format - accepted media types include: "
    return ApiError(415, "UnsupportedMediaType", text + ", ".join(accepted))


def expired(asked: int, oldest: int) -> ApiError:
    """A watch from a version that is forgotten."""
    return ApiError(410, "Expired", f"too old resource version: {asked} ({oldest})")
