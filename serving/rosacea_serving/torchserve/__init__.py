"""TorchServe, kept behind one seam: how it is started, watched and spoken to. Nothing of it shows elsewhere."""

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
