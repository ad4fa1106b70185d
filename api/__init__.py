"""HTTP: routes that authenticate, call services, start workflows and stream their progress.

routes/             the endpoints, a module for each resource; `admin/` for administrators
app.py              the application: routers and middleware
service_groups.py   the services that routes call, in groups; built in `workers/composition`
dependencies.py     these groups, as routes ask for them
parameters.py       path, query and header parameters
access.py           authentication, permissions and rate limits
errors.py           errors as responses; messages are in error_messages.py, validation_messages.py
temporal_gateway.py the only access to Temporal
turns.py, sse.py    what routes of turns share; event streams
openapi.py          what the OpenAPI document needs beside the routes
"""
