"""The HTTP edge: routes, headers, bodies and answers. No business logic, and the only room that imports FastAPI.

`server` ports and shutdown; `connection` the bounds of one connection; `app` what is mounted where, and the routes of
operators; `calls` the endpoints that run functions; `headers`, `bodies`, `answers`, `cors`, `metrics` the pieces.
"""
