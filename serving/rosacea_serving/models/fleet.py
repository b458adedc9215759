"""All deployments, and replacing them without failing calls.

A swap starts the new revisions beside the old ones, has each of them draw, and only then lets calls find them. The
old ones go when every call that was under way at that moment has ended. Where a new one is refused, nothing has
changed.
"""

from __future__ import annotations

import asyncio
import logging
import time
from typing import TYPE_CHECKING

from ..background import Background, Task
from ..catalog import Catalog

if TYPE_CHECKING:
    from collections.abc import Callable, Sequence

    from rosacea_model.files.modelfile import ModelFile

    from ..calls.under_way import Calls
    from ..catalog import ServedModel
    from ..scheduling.scheduler import Scheduler
    from .deployment import Deployment

START_SECONDS = 900.0  # the workers' own time limit is shorter

log = logging.getLogger(__name__)


class Fleet:
    """Deployments by revision, under their public names. `deploy` creates one."""

    def __init__(
        self,
        files: Sequence[ModelFile],
        deploy: Callable[[ModelFile], Deployment],
        calls: Calls,
        retire_seconds: float,
        background: Background,
    ) -> None:
        self._background = background
        self.catalog = Catalog(files)
        self.schedulers: dict[str, Scheduler] = {}
        self._deploy = deploy
        self._calls = calls
        self._retire_seconds = retire_seconds
        self._serving: dict[str, Deployment] = {}
        self._retiring: dict[Deployment, asyncio.Task[None]] = {}
        self._swapping = asyncio.Lock()
        self._stopping = asyncio.Event()
        for file in files:
            self._enter(deploy(file))

    @property
    def serving(self) -> list[Deployment]:
        """The deployments in service, without those being replaced."""
        return list(self._serving.values())

    @property
    def files(self) -> list[ModelFile]:
        """Files still in use: those of served models, and of replaced ones with calls in progress."""
        return [each.model.file for each in [*self._serving.values(), *self._retiring]]

    def is_ready(self, model: ServedModel) -> bool:
        """Whether this revision is served and can draw now."""
        deployment = self._serving.get(model.revision)
        return deployment is not None and deployment.ready

    async def start(self) -> None:
        """Start all deployments without waiting for them. Raises StartFailed for errors that a retry cannot fix."""
        for each in self.serving:
            await each.workers.start()

    async def wait_ready(self, timeout_seconds: float) -> None:
        """Wait until every model has drawn a test face; StartFailed if one does not."""
        ready_by = time.monotonic() + timeout_seconds
        for each in self.serving:
            await each.workers.wait_ready(ready_by - time.monotonic())

    async def swap(self, files: Sequence[ModelFile]) -> bool:
        """Serve exactly these models from now on; returns False if they are served already.

        Raises ValueError or BackendError, and changes nothing, where one of them cannot be served.
        """
        async with self._swapping:
            wanted = Catalog(files)
            added = [self._deploy(each.file) for each in wanted.revisions if each.revision not in self._serving]
            try:
                for each in added:
                    await each.workers.start()
                for each in added:
                    await each.workers.wait_ready(START_SECONDS)
            except BaseException:
                await asyncio.gather(*(each.stop() for each in added))
                raise
            return self._switch(files, wanted, added)

    def _switch(self, files: Sequence[ModelFile], wanted: Catalog, added: Sequence[Deployment]) -> bool:
        # No await in here: a call finds either all of the old or all of the new.
        keep = {each.revision for each in wanted.revisions}
        unchanged = [each.revision for each in wanted.revisions] == [each.revision for each in self.catalog.revisions]
        self.catalog.replace(files)
        for each in added:
            self._enter(each)
        for revision in [revision for revision in self._serving if revision not in keep]:
            old = self._serving.pop(revision)
            old.retire()
            self._retiring[old] = asyncio.create_task(self._retire(old))
        return not unchanged

    def _enter(self, deployment: Deployment) -> None:
        self._serving[deployment.model.revision] = deployment
        self.schedulers[deployment.model.revision] = deployment.scheduler

    async def _retire(self, old: Deployment) -> None:
        name = f"{old.model.short_name} {old.model.short_digest}"
        waits = [asyncio.ensure_future(self._calls.outlive(self._retire_seconds)), _when(self._stopping)]
        await asyncio.wait(waits, return_when=asyncio.FIRST_COMPLETED)
        if waits[0].done() and not waits[0].result():
            log.warning("%s goes though calls still use it: it had %g s", name, self._retire_seconds)
        for wait in waits:
            wait.cancel()
        # The same revision may be back in service by now, with another scheduler.
        if self.schedulers.get(old.model.revision) is old.scheduler:
            del self.schedulers[old.model.revision]
        with self._background.guarding(Task.RETIRE):
            await old.stop()
        del self._retiring[old]
        log.info("%s is out of service", name)

    def refuse_all(self) -> None:
        """Refuse waiting images and new ones."""
        for each in [*self._serving.values(), *self._retiring]:
            each.scheduler.refuse_all()

    async def stop(self) -> None:
        """Stop all deployments at once."""
        self._stopping.set()
        await asyncio.gather(*(each.stop() for each in self.serving), *self._retiring.values())


def _when(event: asyncio.Event) -> asyncio.Future[bool]:
    return asyncio.ensure_future(event.wait())
