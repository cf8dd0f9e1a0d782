"""Measures the product: where each microsecond of a call goes, and what a server sustains over HTTP.

Invariants: nothing of the product is changed or instrumented in its source; what is timed inside a call is timed by
wrappers that are put around its functions from outside and taken off again. Every number comes with the machine it
was taken on and the seed of the load.
"""
