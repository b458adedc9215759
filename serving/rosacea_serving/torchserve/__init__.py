"""The gateway's side of TorchServe: starts, watches, restarts and calls it."""

from .backend import Backend, TorchServeBackend
from .errors import BackendDown, BackendError, BackendFailed, NoAnswer, StartFailed, WorkerDied
from .options import TorchServeOptions
from .supervisor import State, Supervisor

__all__ = [
    "Backend",
    "BackendDown",
    "BackendError",
    "BackendFailed",
    "NoAnswer",
    "StartFailed",
    "State",
    "Supervisor",
    "TorchServeBackend",
    "TorchServeOptions",
    "WorkerDied",
]
