"""Storage: ordered byte trees on disk, one environment per deployment."""

from skerry.storage.interface import Charge, Item, StorageEngine, StorageSnapshot, Tree, Write, index_end, index_prefix

__all__ = ["Charge", "Item", "StorageEngine", "StorageSnapshot", "Tree", "Write", "index_end", "index_prefix"]
