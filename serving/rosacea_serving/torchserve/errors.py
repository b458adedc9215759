"""Errors of TorchServe.

BackendError
  BackendDown        not reachable, no worker, no answer in time, queue full: the job may be tried again
    NoAnswer           sent, and not answered in the time allowed
    WorkerDied         the worker that had the job is gone and is being replaced
  BackendFailed      it answered, and the answer is no result: trying again is of no use
  StartFailed        it could not be started
"""

from __future__ import annotations


class BackendError(Exception):
    """Base class of the errors that `rosacea_serving.torchserve` raises, except ValueError for arguments."""


class BackendDown(BackendError):
    """TorchServe cannot answer this job now."""


class NoAnswer(BackendDown):
    """The job was sent and may still be drawn, but nobody waits for it any more."""


class WorkerDied(BackendDown):
    """The worker that had the job ended. Jobs are pure functions, so the same job may be sent again."""


class BackendFailed(BackendError):
    """TorchServe rejected the job, or the job itself failed."""


class StartFailed(BackendError):
    """TorchServe, or the Java it runs on, could not be started."""
