"""Vector search: the documents whose vectors point most nearly where a given one points.

In: declared vector indexes, durable commits, the documents there are. Out: ids with scores. Theory of operation:

**Derived data.** Vectors live in documents. What is searched is a copy in memory, made when an index is first asked
(hydration) and kept up by durable commits from then on. A crash, an idle deployment that is closed, or a lack of
memory loses nothing but the copy. There is no file: a second truth on disk would have to be trusted, and the exact
search below serves from the first moment.

**Versions.** A copy knows since when and until when each vector held (`blocks`), so a query is answered exactly as of
its snapshot while commits go on: the same call gives the same bytes, whatever happened around it.

**Exact, and above a size approximate.** Every score that leaves is computed in float64 from the stored vector alone.
What is scored is everything (queries, and actions up to `VECTOR_EXACT_VALUES_MAX` numbers), or what a graph
(`graph`) proposes (actions above that), whose effort is set by measuring its recall on the deployment's own vectors.

**Threads.** One of a deployment's jobs runs at a time: hydration, taking in commits, growing the graph, searches of
actions. Queries look from the thread they run on, which a lock per index allows between pieces of that work.

Nothing here imports numpy or the library before the first search: `indexes` does, once it needs a copy.

Deliberately absent: vectors in read sets (a query that searches has read the whole table), searches in mutations, and
reads of the past.
"""

from skerry.vectors.indexes import Answer, VectorIndexes
from skerry.vectors.memory import Share, VectorMemory, get_vector_memory
from skerry.vectors.question import Question, parse_question

__all__ = ["Answer", "Question", "Share", "VectorIndexes", "VectorMemory", "get_vector_memory", "parse_question"]
