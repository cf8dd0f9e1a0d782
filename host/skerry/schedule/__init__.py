"""Scheduled functions and crons: what is to run later, when, and what became of it.

`jobs` keeps scheduled functions as documents, `runner` runs what is due, `due_mark` tells the host of a deployment that
is closed when it has to be opened.
"""
