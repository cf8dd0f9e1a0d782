"""Documents in files: the formats that are imported, and the snapshot archive that is exported.

In: bytes of strangers, read piece by piece from a file on this disk. Out: rows, each with the line it stood on; an
archive. Memory is constant: a piece of the file, one document, one batch.

Deliberately absent: HTTP, jobs, and writing any path that an archive names: entries are read as streams.
"""
