"""The authorisation matrix: every route of the API, and what each actor gets from it.

The columns: `nobody` sends no token; `key` is an API key that may only read tools; `owner` is the
user whose thing it is; `other` another user; `admin` an administrator, whose thing it is not.
"""

from typing import Final, NamedTuple


class Row(NamedTuple):
    """The status that each actor gets."""

    nobody: int
    key: int
    owner: int
    other: int
    admin: int


MATRIX: Final[dict[str, Row]] = {
    "GET /health/live": Row(200, 200, 200, 200, 200),
    "GET /health/ready": Row(200, 200, 200, 200, 200),
    "POST /auth/signup": Row(201, 201, 201, 201, 201),
    "POST /auth/login": Row(200, 200, 200, 200, 200),
    "POST /auth/refresh": Row(200, 200, 200, 200, 200),
    "POST /auth/logout": Row(204, 204, 204, 204, 204),
    "GET /auth/me": Row(401, 403, 200, 200, 200),
    "GET /users/me": Row(401, 403, 200, 200, 200),
    "PATCH /users/me": Row(401, 403, 200, 200, 200),
    "DELETE /users/me": Row(401, 403, 204, 204, 204),
    "GET /users/me/preferences": Row(401, 403, 200, 200, 200),
    "PUT /users/me/preferences": Row(401, 403, 200, 200, 200),
    "GET /users/me/export": Row(401, 403, 200, 200, 200),
    "GET /users/me/api-keys": Row(401, 403, 200, 200, 200),
    "POST /users/me/api-keys": Row(401, 403, 201, 201, 201),
    "DELETE /users/me/api-keys/{key_id}": Row(401, 403, 204, 403, 403),
    "POST /chats": Row(401, 403, 201, 201, 201),
    "GET /chats": Row(401, 403, 200, 200, 200),
    "GET /chats/{chat_id}": Row(401, 403, 200, 403, 403),
    "PATCH /chats/{chat_id}": Row(401, 403, 200, 403, 403),
    "DELETE /chats/{chat_id}": Row(401, 403, 204, 403, 403),
    "GET /chats/{chat_id}/messages": Row(401, 403, 200, 403, 403),
    "POST /chats/{chat_id}/messages": Row(401, 403, 200, 403, 403),
    "GET /turns/{turn_id}": Row(401, 403, 200, 403, 403),
    "GET /turns/{turn_id}/events": Row(401, 403, 200, 403, 403),
    "POST /turns/{turn_id}/cancel": Row(401, 403, 202, 403, 403),
    "POST /turns/{turn_id}/regenerate": Row(401, 403, 200, 403, 403),
    "POST /memories": Row(401, 403, 201, 201, 201),
    "GET /memories": Row(401, 403, 200, 200, 200),
    "POST /memories/search": Row(401, 403, 200, 200, 200),
    "GET /memories/{memory_id}": Row(401, 403, 200, 403, 403),
    "PATCH /memories/{memory_id}": Row(401, 403, 200, 403, 403),
    "DELETE /memories/{memory_id}": Row(401, 403, 204, 403, 403),
    "POST /memories/{memory_id}/accept": Row(401, 403, 200, 403, 403),
    "POST /memories/{memory_id}/reject": Row(401, 403, 200, 403, 403),
    "POST /knowledge": Row(401, 403, 201, 201, 201),
    "GET /knowledge": Row(401, 403, 200, 200, 200),
    "POST /knowledge/search": Row(401, 403, 200, 200, 200),
    "GET /knowledge/{document_id}": Row(401, 403, 200, 403, 403),
    "PATCH /knowledge/{document_id}": Row(401, 403, 200, 403, 403),
    "DELETE /knowledge/{document_id}": Row(401, 403, 204, 403, 403),
    "GET /knowledge/{document_id}/versions": Row(401, 403, 200, 403, 403),
    "POST /knowledge/{document_id}/versions": Row(401, 403, 201, 403, 403),
    "GET /knowledge/{document_id}/versions/{number}": Row(401, 403, 200, 403, 403),
    "POST /knowledge/{document_id}/publish": Row(401, 403, 200, 403, 403),
    "POST /knowledge/{document_id}/unpublish": Row(401, 403, 200, 403, 403),
    "GET /tools": Row(401, 200, 200, 200, 200),
    "GET /tools/{name}": Row(401, 200, 200, 200, 200),
    "GET /subscription": Row(401, 403, 200, 200, 200),
    "GET /subscription/usage": Row(401, 403, 200, 200, 200),
    "GET /admin/users": Row(401, 403, 403, 403, 200),
    "GET /admin/users/{user_id}": Row(401, 403, 403, 403, 200),
    "PATCH /admin/users/{user_id}": Row(401, 403, 403, 403, 200),
    "PUT /admin/users/{user_id}/subscription": Row(401, 403, 403, 403, 200),
    "GET /admin/prompts": Row(401, 403, 403, 403, 200),
    "POST /admin/prompts": Row(401, 403, 403, 403, 201),
    "GET /admin/prompts/{prompt_id}": Row(401, 403, 403, 403, 200),
    "GET /admin/prompts/{prompt_id}/versions": Row(401, 403, 403, 403, 200),
    "POST /admin/prompts/{prompt_id}/versions": Row(401, 403, 403, 403, 201),
    "POST /admin/prompts/{prompt_id}/versions/{number}/activate": Row(401, 403, 403, 403, 200),
    "GET /admin/tools": Row(401, 403, 403, 403, 200),
    "PATCH /admin/tools/{name}": Row(401, 403, 403, 403, 200),
    "POST /admin/tools/{name}/test": Row(401, 403, 403, 403, 200),
    "GET /admin/mcp-servers": Row(401, 403, 403, 403, 200),
    "POST /admin/mcp-servers": Row(401, 403, 403, 403, 201),
    "GET /admin/mcp-servers/{name}": Row(401, 403, 403, 403, 200),
    "PATCH /admin/mcp-servers/{name}": Row(401, 403, 403, 403, 200),
    "DELETE /admin/mcp-servers/{name}": Row(401, 403, 403, 403, 204),
    "POST /admin/mcp-servers/{name}/refresh": Row(401, 403, 403, 403, 200),
    "GET /admin/workflow-tools": Row(401, 403, 403, 403, 200),
    "POST /admin/workflow-tools": Row(401, 403, 403, 403, 201),
    "GET /admin/workflow-tools/{name}": Row(401, 403, 403, 403, 200),
    "PATCH /admin/workflow-tools/{name}": Row(401, 403, 403, 403, 200),
    "DELETE /admin/workflow-tools/{name}": Row(401, 403, 403, 403, 204),
    "GET /admin/plans": Row(401, 403, 403, 403, 200),
    "POST /admin/plans": Row(401, 403, 403, 403, 201),
    "PATCH /admin/plans/{plan_id}": Row(401, 403, 403, 403, 200),
    "GET /admin/usage": Row(401, 403, 403, 403, 200),
    "GET /admin/audit": Row(401, 403, 403, 403, 200),
    "GET /admin/alerts": Row(401, 403, 403, 403, 200),
    "GET /admin/turns": Row(401, 403, 403, 403, 200),
    "GET /admin/turns/{turn_id}": Row(401, 403, 403, 403, 200),
    "POST /admin/turns/{turn_id}/cancel": Row(401, 403, 403, 403, 202),
    "POST /admin/turns/{turn_id}/rerun": Row(401, 403, 403, 403, 202),
    "GET /admin/knowledge": Row(401, 403, 403, 403, 200),
    "POST /admin/knowledge/{document_id}/unpublish": Row(401, 403, 403, 403, 200),
    "GET /metrics": Row(200, 200, 200, 200, 200),
}
