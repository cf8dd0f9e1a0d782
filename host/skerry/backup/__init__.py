"""Backups: a deployment in one file, logically and with a version, and new deployments made of such files.

In: a snapshot of a deployment that serves; files of strangers. Out: a stream of pieces; a deployment's folder that no
server knows yet. `file` has the format, `taking` writes it, `restoring` reads it into a folder.

Deliberately absent: HTTP, jobs, the registry, and any path that a file names: nothing in a file becomes a path but the
digest of a bundle, which is made of the bundle's own bytes.
"""
