"""The processes of `skerry serve`: who starts, watches, restarts and replaces workers, and what they pass each other.

The supervisor's side (`supervisor`, `seat`, `process`, `wakeups`, `restarts`, `listeners`) and what its workers use
(`worker_side`, `channel`, `handover`, `crash_page`, `ownership`). Deliberately absent: what a worker does with
its time; any import of the engine, the storage or the web framework.
"""
