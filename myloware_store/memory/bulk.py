"""Memory documents loaded in bulk: streamed by COPY, of any number, in one transaction."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator, Mapping
from io import BytesIO
from typing import TYPE_CHECKING, Any

from myloware_store.core.arguments import as_count
from myloware_store.core.errors import ConstraintViolation, InvalidInput, MemoryConflict, NotFound
from myloware_store.db.statements import LIFT_DEADLINES
from myloware_store.memory.rows import COLUMNS, GIVEN, cut, may_copy, pack, read_batch
from myloware_store.memory.writer import MemoryWriter

if TYPE_CHECKING:
    from myloware_store.core.results import NewDoc
    from myloware_store.memory.rows import Batch

__all__ = ["BulkLoad"]

COPY = f"COPY mem_docs ({COLUMNS}) FROM STDIN BINARY"
INSERT = f"INSERT INTO mem_docs ({COLUMNS}) {GIVEN}"
_BATCH_CHARS = 16_000_000


class BulkLoad(MemoryWriter):
    """Loading documents in bulk."""

    def bulk_load(
        self,
        docs: Iterable[Mapping[str, Any] | NewDoc],
        *,
        progress: Callable[[int], object] | None = None,
        batch_size: int = 1_000,
    ) -> int:
        """Load new documents, as many as the iterable gives, in one transaction: all of them or none.

        The documents are drawn, checked, embedded where the store has an embedder, and sent a batch at a time, so that
        memory stays as it is however many there are; between the batches `docs` may use the store. No
        time-out of the server's ends the load, unless the transaction is the caller's. The server computes
        the search vector and the hash of the content, and keeps the indexes up to date. For a load that can be
        taken up where it stopped, call this once for each portion, or `upsert` with ids of your own.

        Args:
            docs: As `upsert` takes them; all of them are new.
            progress: Called with the number of documents sent so far, after each batch; they are stored when the whole
                load is.
            batch_size: Documents sent at once (1 to 100,000); fewer where their contents are long.

        Returns:
            How many documents were stored.

        Raises:
            InvalidInput: A document cannot be stored; nothing was written. Or what is called meanwhile (`docs`,
                `progress`, the embedder) has ended the transaction.
            InvalidVector: An embedding has a wrong shape, is zero, NaN or infinite; nothing was written.
            MemoryConflict: An id is there already, or came in an earlier batch; nothing was written.
            NotFound: There is no such work item, or it is another tenant's; nothing was written.
            StoreError: The embedder failed, which is this error's cause; nothing was written.
        """
        if progress is not None and not callable(progress):
            raise InvalidInput(f"progress: {type(progress).__name__} cannot be called")
        size = as_count(batch_size, "batch_size")
        sent = 0
        own = not self._db.transaction_open()
        with self._db.atomic():
            if own:
                self._db.execute_sql(LIFT_DEADLINES, (True,))
            for docs_of_batch in _batches(docs, size):
                batch = read_batch(docs_of_batch, self._embedder, before=sent)
                self._require_transaction()
                self._assign_tenants(batch.rows)
                self._send(batch)
                sent += len(batch.rows)
                if progress is not None:
                    progress(sent)
            self._require_transaction()
        return sent

    def _require_transaction(self) -> None:
        if not self._db.transaction_open():
            raise InvalidInput("bulk_load: the transaction was ended by what it calls: docs, progress or the embedder")

    def _send(self, batch: Batch) -> None:
        try:
            if may_copy():
                self._db.copy(COPY, BytesIO(pack(batch)))
            else:
                for part in cut(batch):
                    self._db.execute_sql(INSERT, part.arrays())
        except ConstraintViolation as error:
            conflicts = {
                "mem_docs_pkey": MemoryConflict(_taken(batch, error)),
                "mem_docs_work_item_id_fkey": NotFound("bulk_load: a work item was deleted meanwhile"),
            }
            if error.constraint in conflicts:
                raise conflicts[error.constraint] from None
            raise


def _taken(batch: Batch, error: ConstraintViolation) -> str:
    """Say which document's id is taken; the server's detail names the id to a role that may read it."""
    detail = getattr(getattr(error.driver_error, "diag", None), "message_detail", None) or ""
    taken = (row for row in batch.rows if str(row.id) in detail)
    told = (f"{row.place}: the id {row.id} is there already, or comes twice" for row in taken)
    return next(told, "bulk_load: an id is there already, or comes twice")


def _batches(docs: Any, size: int) -> Iterator[list[Any]]:
    """Cut the documents into lists of that size, shorter where the contents are long."""
    try:
        each = None if isinstance(docs, str | bytes | Mapping) else iter(docs)
    except TypeError:
        each = None
    if each is None:
        raise InvalidInput(f"docs: {type(docs).__name__} is not an iterable of documents")
    batch: list[Any] = []
    chars = 0
    for doc in each:
        batch.append(doc)
        content = doc.get("content") if isinstance(doc, Mapping) else getattr(doc, "content", None)
        chars += len(content) if isinstance(content, str) else 0
        if len(batch) == size or chars > _BATCH_CHARS:
            yield batch
            batch, chars = [], 0
    if batch:
        yield batch
