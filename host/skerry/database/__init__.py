"""The database of a deployment."""

from skerry.database.database import Conflict, Database
from skerry.database.read_set import ReadSet, WriteIndex
from skerry.database.transaction import DocumentWrite, Transaction

__all__ = ["Conflict", "Database", "DocumentWrite", "ReadSet", "Transaction", "WriteIndex"]
