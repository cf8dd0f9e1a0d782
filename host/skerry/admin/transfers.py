"""Imports and exports of one deployment as jobs: uploads spooled to disk, what is to be confirmed, progress, results.

```
start_upload -> part, part, ... -> finish_upload -> waiting_for_confirmation -> perform -> in_progress -> completed
                                        \\-> failed            cancel -> failed          \\-> failed
```

Files lie in `transfers/` of the deployment's folder and are nobody's after a restart: the first use empties it, so what
a crash leaves costs disk until then and nothing else; `transfer_files` bounds what they take. One import runs at a
time. The last export is kept.

After a restart the last import that was completed is known by its id, because its switch wrote it down; of every other
nothing is there, and whoever asks is told to begin again.

The shapes of states are the protocol's, as values; what is ours besides begins with a name of its own
(`bytesRead`, `bytesTotal`, `rowsWritten`).

Concurrency: the loop thread; files are opened, joined and judged on worker threads. Deliberately absent: resuming after
a restart, schedules, and where the bytes come from.
Source: protocol reference 5.13, 5.14.
"""

import asyncio
import logging
import shutil
from collections.abc import Callable, Coroutine
from contextlib import closing, suppress
from pathlib import Path
from typing import Any, Final

from skerry import limits
from skerry.admin.hosted import Hosted
from skerry.admin.transfer_files import Held, Part, TransferFiles, Upload
from skerry.database import Steps
from skerry.errors import ClientError, SkerryError, SystemFault
from skerry.functions.deployment import Deployment
from skerry.storage.full_disk import file_fault
from skerry.transfer.exporting import Export
from skerry.transfer.importing import Import, Order, Source, completed_rows, plan_of
from skerry.value import Int64

_log: Final = logging.getLogger("skerry.transfers")
_FOLDER: Final = "transfers"
_TOKEN_BYTES: Final = 16
_NS_PER_MS: Final = 1_000_000
_FINISHED: Final = ("completed", "failed")


class _Job:
    """One import. Shape: `state` as the protocol has it."""

    def __init__(self, job_id: str, order: Order, path: Path, held: Held) -> None:
        self.id = job_id
        self.order = order
        self.path = path
        self.held = held
        self.is_canceled = False
        self.running: Import | None = None
        self.bytes_total = 0
        self.work: asyncio.Task[None] | None = None
        self._state: dict[str, Any] = {"state": "uploaded"}

    @property
    def state(self) -> dict[str, Any]:
        running = self.running
        if running is None:
            return self._state
        rows = running.rows_written
        return {
            "state": "in_progress",
            "progress_message": f"Importing table {running.table} ({rows:,} documents)",
            "checkpoint_messages": [
                f"Imported table {name} ({count:,} documents)" for name, count in running.rows_of.items()
            ],
            "rowsWritten": Int64(rows),
            "bytesRead": Int64(running.bytes_read),
            "bytesTotal": Int64(self.bytes_total),
        }

    def set(self, **state: Any) -> None:
        self._state = state

    def fail(self, error: BaseException) -> None:
        self._state = _failed_state(error)


class Transfers:
    """The imports and exports of a deployment. One object for each, for as long as the process serves it."""

    def __init__(self, hosted: Hosted, loop: asyncio.AbstractEventLoop, entropy: Callable[[int], bytes]) -> None:
        self._hosted = hosted
        self._loop = loop
        self._entropy = entropy
        self._files = TransferFiles(loop.time)
        self._uploads: dict[str, Upload] = {}
        self._jobs: dict[str, _Job] = {}
        self._performing: _Job | None = None
        self._tasks: set[asyncio.Task[None]] = set()
        self._export: dict[str, Any] | None = None
        self._export_path: Path | None = None
        self._export_held: Held | None = None
        self._exporting: Export | None = None
        self._folder: Path | None = None
        self._preparing = asyncio.Lock()

    # -- imports -----------------------------------------------------------------------------------------------------

    async def start_upload(self, *, part_bytes_max: int = limits.IMPORT_PART_BYTES_MAX) -> str:
        """A token for a file that arrives in parts. Raises: SkerryError of opening the deployment."""
        async with self._hosted.using() as deployment:
            folder = await self._prepared(deployment)
        while len(self._uploads) >= limits.IMPORT_UPLOADS_MAX:
            self._give_up_upload(next(iter(self._uploads)))
        token = self._entropy(_TOKEN_BYTES).hex()
        held = self._files.hold(lambda: self._give_up_upload(token))
        self._uploads[token] = Upload(token, folder, self._files, held, part_bytes_max)
        return token

    def part(self, token: str, number: int) -> Part:
        """A part of an upload, to be written. Raises: ClientError `ImportNotFound`; SystemFault `StorageFull`."""
        if not 1 <= number <= limits.IMPORT_PARTS_MAX:
            raise ClientError("ImportTooLarge", f"Parts are numbered from 1 to {limits.IMPORT_PARTS_MAX}.")
        return Part(self._upload(token), number)

    async def finish_upload(self, order: Order, token: str, parts: list[str]) -> str:
        """The id of an import of what was uploaded; it is judged now, and waits for `perform`.

        Raises: ClientError `ImportNotFound`; SystemFault `StorageFull`, and the upload is gone then.
        """
        upload = self._upload(token)
        upload.held.give_up = None
        try:
            path = await asyncio.to_thread(upload.joined, parts)
        except SystemFault:
            self._give_up_upload(token)
            raise
        self._uploads.pop(token, None)
        job = _Job(self._entropy(_TOKEN_BYTES).hex(), order, path, upload.held)
        self._jobs[job.id] = job
        for known in list(self._jobs.values()):
            if len(self._jobs) > limits.IMPORTS_REMEMBERED and known is not self._performing and known is not job:
                del self._jobs[known.id]
                self._drop_file(known)
        job.work = self._spawn(self._judge(job))
        return job.id

    async def settled(self, import_id: str) -> dict[str, Any]:
        """The state of an import once what it does now has come to its end. Raises: ClientError `ImportNotFound`."""
        job = self._job(import_id)
        if job.work is not None:
            await asyncio.shield(job.work)
        return job.state

    async def state(self, import_id: str) -> dict[str, Any]:
        """An import's state, as a value; also of the last one that a restarted server completed.

        Raises: ClientError `ImportNotFound`; SkerryError of opening the deployment.
        """
        job = self._jobs.get(import_id)
        if job is not None:
            return job.state
        async with self._hosted.using() as deployment:
            rows = completed_rows(deployment.database, import_id)
        if rows is None:
            raise _unknown()
        return {"state": "completed", "num_rows_written": Int64(rows)}

    def states(self) -> list[dict[str, Any]]:
        """The imports that are remembered, the newest first."""
        return [{"_id": job.id, "state": job.state} for job in reversed(self._jobs.values())]

    def perform(self, import_id: str) -> None:
        """Begins an import that waits for it. Raises: ClientError `ImportInProgress`, `ImportNotFound`."""
        job = self._job(import_id)
        if self._performing is not None:
            raise ClientError("ImportInProgress", "Another import of this deployment is under way. Wait for it.")
        if job.state["state"] != "waiting_for_confirmation":
            raise ClientError("ImportInProgress", f"The import is {job.state['state']}: it is not waiting to begin.")
        self._performing = job
        job.held.give_up = None
        job.set(state="in_progress", progress_message="Importing", checkpoint_messages=[])
        job.work = self._spawn(self._perform(job))

    async def cancel(self, import_id: str) -> None:
        """Ends an import before its switch; nothing of it is kept. Raises: ClientError `ImportNotFound`."""
        job = self._job(import_id)
        job.is_canceled = True
        if job is not self._performing and job.state["state"] not in _FINISHED:
            job.fail(_canceled())
            self._drop_file(job)

    async def _judge(self, job: _Job) -> None:
        try:
            async with self._hosted.using() as deployment:
                with await asyncio.to_thread(Source, job.order, job.path) as source:
                    plan = plan_of(deployment.database, source)
            if not job.is_canceled:
                job.held.give_up = lambda: self._give_up_import(job)
                job.set(
                    state="waiting_for_confirmation",
                    message_to_confirm=plan.message,
                    require_manual_confirmation=plan.is_destructive,
                )
        except Exception as error:
            self._failed(job, error)

    async def _perform(self, job: _Job) -> None:
        try:
            async with self._hosted.using() as deployment:
                await self._import(job, deployment)
        except Exception as error:
            self._failed(job, error)
        finally:
            self._performing = None
            job.running = None
            self._drop_file(job)

    async def _import(self, job: _Job, deployment: Deployment) -> None:
        with await asyncio.to_thread(Source, job.order, job.path) as source:
            running = Import(
                deployment.database,
                source,
                lambda: deployment.clock_ns() / _NS_PER_MS,
                deployment.entropy,
                deployment.lane.beside,
                job.id,
            )
            job.bytes_total = source.bytes_total
            job.running = running
            try:
                await deployment.take_steps(_until_canceled(job, running.fill()))
                await deployment.take_steps_alone(running.switch)
            except BaseException:
                with suppress(SkerryError):
                    await deployment.take_steps(running.settle())
                raise
            finally:
                running.close()
                deployment.clear_imported()
            job.set(state="completed", num_rows_written=Int64(running.rows_written))

    # -- exports -----------------------------------------------------------------------------------------------------

    async def request_export(self, *, with_storage: bool) -> None:
        """Begins an export of the present state. Raises: ClientError `ExportInProgress`."""
        if self._export is not None and self._export["state"] not in _FINISHED:
            raise ClientError("ExportInProgress", "An export of this deployment is under way. Wait for it.")
        self._export = {"state": "requested"}
        self._spawn(self._perform_export(with_storage))

    def latest_export(self) -> dict[str, Any] | None:
        """The state of the last export, as a value; None where there was none."""
        running = self._exporting
        if running is None or self._export is None:
            return self._export
        return {**self._export, "rowsWritten": Int64(running.documents), "table": running.table}

    def export_file(self, export_id: str) -> Path:
        """The archive of the last export, which is kept until the next. Raises: ClientError `ExportNotFound`."""
        export = self._export
        if export is None or export["state"] != "completed" or export_id != export["zip_object_key"]:
            raise ClientError("ExportNotFound", "There is no such export: request one, and wait until it is completed.")
        assert self._export_path is not None
        if self._export_held is not None:
            self._files.touch(self._export_held)
        return self._export_path

    async def _perform_export(self, with_storage: bool) -> None:
        path: Path | None = None
        self._drop_export()
        held = self._export_held = self._files.hold(None)
        try:
            async with self._hosted.using() as deployment:
                folder = await self._prepared(deployment)
                path = folder / f"export-{self._entropy(_TOKEN_BYTES).hex()}.zip"
                running = Export(deployment.database, path, deployment.lane.beside, with_storage=with_storage)
                self._exporting = running
                started: dict[str, Any] = {"start_ts": Int64(running.ts), "zip_object_key": str(running.ts)}
                self._export = {"state": "in_progress", **started}
                try:
                    await deployment.take_steps(self._counted(running.steps(), path, held))
                finally:
                    running.close()
                    self._exporting = None
                    deployment.clear_imported()
                self._export_path = path
                held.give_up = self._give_up_export
                self._export = {
                    "state": "completed",
                    **started,
                    "complete_ts": Int64(deployment.clock_ns()),
                    "rowsWritten": Int64(running.documents),
                }
        except Exception as error:
            self._files.release(held)
            if path is not None:
                await asyncio.to_thread(path.unlink, missing_ok=True)
            shown = _shown(error)
            if not isinstance(shown, SkerryError):
                _log.exception("an export of %s failed", self._hosted.name)
            self._export = _failed_state(shown)

    # -- inside ------------------------------------------------------------------------------------------------------

    async def _prepared(self, deployment: Deployment) -> Path:
        """The folder of files, emptied at the first use. Raises: SystemFault `StorageFull`."""
        self._files.bytes_max = deployment.terms.storage_bytes
        async with self._preparing:
            if self._folder is None:
                folder = deployment.folder / _FOLDER
                try:
                    await asyncio.to_thread(_empty, folder)
                except OSError as error:
                    raise file_fault(error, "The file") from error
                self._folder = folder
            return self._folder

    def _counted(self, steps: Steps, path: Path, held: Held) -> Steps:
        """The steps of an export, whose file counts as it grows."""
        with closing(steps):
            for waited in steps:
                yield waited
                self._files.grow(held, path.stat().st_size - held.bytes)

    def _give_up_upload(self, token: str) -> None:
        upload = self._uploads.pop(token, None)
        if upload is not None:
            self._files.release(upload.held)
            self._spawn(asyncio.to_thread(upload.discard))

    def _give_up_import(self, job: _Job) -> None:
        job.fail(ClientError("ImportNotFound", "The import waited too long, and its file made room. Upload it again."))
        self._drop_file(job)

    def _give_up_export(self) -> None:
        self._export = None
        self._drop_export()

    def _drop_export(self) -> None:
        path, self._export_path = self._export_path, None
        if self._export_held is not None:
            self._files.release(self._export_held)
        if path is not None:
            self._spawn(asyncio.to_thread(path.unlink, missing_ok=True))

    def _drop_file(self, job: _Job) -> None:
        self._files.release(job.held)
        self._spawn(asyncio.to_thread(job.path.unlink, missing_ok=True))

    def _upload(self, token: str) -> Upload:
        upload = self._uploads.get(token)
        if upload is None:
            raise ClientError(
                "ImportNotFound",
                "There is no such upload: it was finished, gave way to others, or the server restarted. Nothing of it "
                "was imported; upload the file again.",
            )
        return upload

    def _job(self, import_id: str) -> _Job:
        job = self._jobs.get(import_id)
        if job is None:
            raise _unknown()
        return job

    def _failed(self, job: _Job, error: Exception) -> None:
        shown = _shown(error)
        if not isinstance(shown, SkerryError):
            _log.error("an import into %s failed", self._hosted.name, exc_info=error)
        job.fail(shown)
        self._drop_file(job)

    def _spawn(self, work: Coroutine[Any, Any, None]) -> asyncio.Task[None]:
        task = self._loop.create_task(work)
        self._tasks.add(task)
        task.add_done_callback(self._tasks.discard)
        return task


def _until_canceled(job: _Job, steps: Steps) -> Steps:
    """The steps, until somebody does not want them any more."""
    for waited in steps:
        yield waited
        if job.is_canceled:
            raise _canceled()


def _unknown() -> ClientError:
    return ClientError(
        "ImportNotFound",
        "There is no such import: the server restarted before it was complete, and nothing of it was kept, or it is "
        "long past. Look at the table, and import again where the documents are missing.",
    )


def _canceled() -> ClientError:
    return ClientError("ImportCanceled", "The import was cancelled. Nothing of it was kept.")


def _failed_state(error: BaseException) -> dict[str, Any]:
    if isinstance(error, SkerryError):
        return {"state": "failed", "error_message": error.message, "code": error.code}
    message = "The server failed; its log has the trace."
    return {"state": "failed", "error_message": message, "code": "InternalServerError"}


def _shown(error: Exception) -> Exception:
    return file_fault(error, "The file") if isinstance(error, OSError) else error


def _empty(folder: Path) -> None:
    shutil.rmtree(folder, ignore_errors=True)
    folder.mkdir(mode=0o700, exist_ok=True)
