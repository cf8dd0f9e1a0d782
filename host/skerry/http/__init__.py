"""The HTTP edge: routes, headers, bodies and answers. No business logic, and the only room that imports FastAPI.

`server` ports and shutdown; `connection` one connection, `port` what the connections of a port share; `direct` a call
served by its connection, `front` everything that comes as a task; `calls` the endpoints that run functions, `exchange`
what they are given; `app` what is mounted where, and the routes of operators; `headers`, `bodies`, `answers`, `cors`,
`metrics` the pieces; `sync_socket` a WebSocket of live queries, `sync_hub` what those of a deployment share;
`transfer_routes`, `storage_routes`, `host_routes` the routes of imports, of care and of the host.
"""
