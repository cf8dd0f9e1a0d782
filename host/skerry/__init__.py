"""Skerry: a backend that runs untrusted functions as WebAssembly over a transactional document database."""

__version__ = "0.1.0"
