"""Interprets pickles as data: only the opcodes and globals that checkpoints use, without importing anything.

Python's own unpickler imports what a file names and calls it. This one can do neither: a global is a pair of
strings to be looked up in a table of readers written here, a call runs one of those readers on inert values,
and every other opcode is refused. No object is in reach whose attributes a file could set, so the tricks that
turn an allow-list against itself (BUILD on a function's defaults, dotted names, `__globals__`) find no hold.

Whatever goes wrong is one `CheckpointRejected`, with the offending global or opcode in `.offender`.
"""

from __future__ import annotations

import io
import math
import pickletools
import struct
from collections import Counter
from collections.abc import Callable, Iterable, Iterator, Mapping
from dataclasses import dataclass
from functools import partial
from typing import Any, NoReturn

import numpy as np

from ..errors import CheckpointRejected

MAX_FILE_BYTES = 2 * 2**30
MAX_OPCODES = 1_000_000  # a 1024x1024 snapshot has some 60,000
MAX_STORAGE_OPCODES = 200  # in a storage's header, which has up to 40: headers can occur often
MAX_DEPTH = 64  # of containers in each other; a snapshot has about 20
MAX_DIMENSIONS = 8
FLOATS = ("float16", "bfloat16", "float32", "float64")
LEGACY_TORCH_MAGIC = 0x1950A86A20F9469CFC6C
LEGACY_TORCH_PROTOCOL = 1001

# What a damaged or hostile file can make the interpreter raise; all of it leaves as CheckpointRejected.
FAILURES = (
    ArithmeticError,
    AttributeError,
    EOFError,
    LookupError,
    MemoryError,
    OSError,
    RecursionError,
    RuntimeError,
    TypeError,
    ValueError,
    struct.error,
)

Arguments = tuple[Any, ...]
Reader = Callable[[Arguments], object]
Readers = Mapping[tuple[str, str], "Reader | None"]  # None: may be named, never called


@dataclass(frozen=True, slots=True)
class Global:
    """A global name in the file, kept as two strings and never imported."""

    module: str
    name: str

    def __str__(self) -> str:
        return f"{self.module}.{self.name}"


@dataclass(frozen=True, slots=True)
class Record:
    """A persisted module: its class name and attributes, without its source code."""

    class_name: str
    state: dict[Any, Any]


@dataclass(frozen=True, slots=True)
class Dropped:
    """Placeholder for an object that is not needed, such as a script's command-line arguments."""


@dataclass(frozen=True, slots=True, eq=False)
class Storage:
    """Tensor storage, read only when a tensor over it is needed."""

    dtype: np.dtype[Any]
    count: int
    read: Callable[[], bytes | memoryview]


@dataclass(frozen=True, slots=True, eq=False)
class StoredTensor:
    """A tensor's view of its storage; `rebuild_tensor` has checked its bounds."""

    storage: Storage
    offset: int
    size: tuple[int, ...]
    stride: tuple[int, ...]

    @property
    def kind(self) -> str:
        """Element type: float32, float16, bfloat16, int64, ..."""
        return "bfloat16" if self.storage.dtype == BFLOAT16 else self.storage.dtype.name

    def floats(self) -> np.ndarray[Any, np.dtype[np.float32]]:
        """The values as float32, which represents float16 and bfloat16 exactly and rounds float64; floating-point types
        only."""
        if self.kind not in FLOATS:
            reject(f"weights must be one of {', '.join(FLOATS)}, got {self.kind}", "tensor type")
        array = self.array()
        if self.kind == "bfloat16":
            return (array["bfloat16"].astype(np.uint32) << np.uint32(16)).view(np.float32)
        return array.astype(np.float32, copy=False)

    @property
    def nbytes(self) -> int:
        return math.prod(self.size) * self.storage.dtype.itemsize

    def array(self) -> np.ndarray[Any, np.dtype[Any]]:
        """The values as a contiguous copy."""
        dtype = self.storage.dtype
        data = self.storage.read()
        if len(data) != self.storage.count * dtype.itemsize:
            reject(f"a storage must hold {self.storage.count} numbers, got {len(data)} bytes", "storage size")
        if not math.prod(self.size):
            return np.zeros(self.size, dtype)
        strides = [step * dtype.itemsize for step in self.stride]
        view: np.ndarray[Any, np.dtype[Any]] = np.ndarray(
            self.size, dtype, buffer=data, offset=self.offset * dtype.itemsize, strides=strides
        )
        return view.copy(order="C")


def converted(tensors: Iterable[StoredTensor]) -> list[str]:
    """Note on how many tensors have a floating-point type that has to be converted."""
    kinds = Counter(tensor.kind for tensor in tensors if tensor.kind in FLOATS and tensor.kind != "float32")
    return [f"{count} tensors were {kind}: they are float32 now" for kind, count in sorted(kinds.items())]


def reject(message: str, offender: object = None) -> NoReturn:
    raise CheckpointRejected(message, None if offender is None else shown(offender))


def unreadable(what: str, error: BaseException) -> CheckpointRejected:
    return CheckpointRejected(f"not a readable {what}: {type(error).__name__}: {shown(error)}")


def shown(value: object) -> str:
    """Make untrusted text printable and short."""
    text = str(value)
    return (text if text.isprintable() else ascii(text))[:120]


def interpret(
    stream: io.BytesIO,
    readers: Readers,
    persistent: Callable[[object], object] | None = None,
    max_opcodes: int = MAX_OPCODES,
) -> object:
    """Interpret the pickle at the stream's position; the stream is left after its end.

    `persistent` reads persistent ids; without it they are refused.
    """
    try:
        value = _Machine(readers, persistent).run(stream, max_opcodes)
        _check_depth(value)
    except FAILURES as error:
        raise unreadable("pickle", error) from error
    return value


class _Machine:
    """The pickle stack machine, with only the opcodes that checkpoints use."""

    def __init__(self, readers: Readers, persistent: Callable[[object], object] | None) -> None:
        self.readers = readers
        self.persistent = persistent
        self.stack: list[Any] = []
        self.marks: list[int] = []
        self.memo: dict[int, Any] = {}

    def run(self, stream: io.BytesIO, max_opcodes: int) -> object:
        for count, (opcode, argument, _) in enumerate(pickletools.genops(stream)):
            if count >= max_opcodes:
                reject(f"a pickle may have at most {max_opcodes} opcodes", "opcode count")
            self.step(opcode.name, argument)
        return self.stack.pop()

    def step(self, opcode: str, argument: Any) -> None:
        if opcode in LITERALS:
            self.stack.append(argument)
        elif opcode in CONSTANTS:
            self.stack.append(CONSTANTS[opcode])
        elif opcode in EMPTY:
            self.stack.append(EMPTY[opcode]())
        elif opcode in ACTIONS:
            ACTIONS[opcode](self, argument)
        elif opcode not in ("PROTO", "FRAME", "STOP"):
            reject(f"opcode {opcode} is not one that a checkpoint needs", opcode)

    def pop_many(self, count: int) -> list[Any]:
        if count > len(self.stack):
            reject("a pickle takes more from its stack than it put there")
        items = self.stack[len(self.stack) - count :]
        del self.stack[len(self.stack) - count :]
        return items

    def pop_to_mark(self) -> list[Any]:
        return self.pop_many(max(len(self.stack) - self.marks.pop(), 0))

    def mark(self, _: object) -> None:
        self.marks.append(len(self.stack))

    def memoize(self, index: int | None) -> None:
        self.memo[len(self.memo) if index is None else index] = self.stack[-1]

    def recall(self, index: int) -> None:
        self.stack.append(self.memo[index])

    def append(self, _: object) -> None:
        self.extend_list(self.pop_many(1))

    def appends(self, _: object) -> None:
        self.extend_list(self.pop_to_mark())

    def extend_list(self, items: list[Any]) -> None:
        _expect(self.stack[-1], list, "the target of APPEND").extend(items)

    def add_items(self, _: object) -> None:
        items = self.pop_to_mark()
        _expect(self.stack[-1], set, "the target of ADDITEMS").update(map(_key, items))

    def set_item(self, _: object) -> None:
        self.update_dict(self.pop_many(2))

    def set_items(self, _: object) -> None:
        self.update_dict(self.pop_to_mark())

    def update_dict(self, items: list[Any]) -> None:
        pairs = zip(map(_key, items[::2]), items[1::2], strict=True)
        _expect(self.stack[-1], dict, "the target of SETITEM").update(pairs)

    def global_text(self, pair: str) -> None:
        module, _, name = pair.partition(" ")
        self.push_global(module, name)

    def global_stack(self, _: object) -> None:
        module, name = self.pop_many(2)
        self.push_global(_expect(module, str, "a global's module"), _expect(name, str, "a global's name"))

    def push_global(self, module: str, name: str) -> None:
        if (module, name) not in self.readers:
            hint = HINTS.get(module, "which no checkpoint of a known kind needs")
            reject(f"the file asks for {shown(f'{module}.{name}')}, {hint}", f"{module}.{name}")
        self.stack.append(Global(module, name))

    def call(self, _: object) -> None:
        target, arguments = self.pop_many(2)
        if not isinstance(target, Global):
            reject(f"only a global can be called, got {type(target).__name__}", "REDUCE")
        reader = self.readers[target.module, target.name]
        if reader is None:
            reject(f"{target} cannot be called", target)
        self.stack.append(reader(_expect(arguments, tuple, f"the arguments of {target}")))

    def build(self, _: object) -> None:
        """Handle opcode BUILD without executing anything: check a numpy dtype's state, ignore that of dropped objects
        and state dicts, reject all others."""
        target, state = self.stack[-2], self.stack.pop()
        if isinstance(target, np.dtype):
            if not isinstance(state, tuple) or len(state) < 2 or state[1] not in ("<", "|", "="):
                reject("a numpy dtype must be plain and little-endian", "numpy.dtype")
        elif not isinstance(target, Dropped) and not _is_state_dict_metadata(target, state):
            reject(f"opcode BUILD may not change {_described(target)}", "BUILD")

    def persistent_id(self, _: object) -> None:
        if self.persistent is None:
            reject("opcode BINPERSID is not one that this file needs", "BINPERSID")
        self.stack.append(self.persistent(self.stack.pop()))


# Values that the opcode itself carries. LONG4, BINBYTES8 and BINUNICODE8 are for more than a file may hold.
LITERALS = frozenset(
    {
        "BININT",
        "BININT1",
        "BININT2",
        "LONG1",
        "BINFLOAT",
        "BINUNICODE",
        "SHORT_BINUNICODE",
        "BINBYTES",
        "SHORT_BINBYTES",
    }
)
CONSTANTS: dict[str, object] = {"NONE": None, "NEWTRUE": True, "NEWFALSE": False}
EMPTY: dict[str, Callable[[], object]] = {
    "EMPTY_DICT": dict,
    "EMPTY_LIST": list,
    "EMPTY_SET": set,
    "EMPTY_TUPLE": tuple,
}
ACTIONS: dict[str, Callable[[_Machine, Any], None]] = {
    "MARK": _Machine.mark,
    "MEMOIZE": _Machine.memoize,
    "BINPUT": _Machine.memoize,
    "LONG_BINPUT": _Machine.memoize,
    "BINGET": _Machine.recall,
    "LONG_BINGET": _Machine.recall,
    "TUPLE": lambda machine, _: machine.stack.append(tuple(machine.pop_to_mark())),
    "TUPLE1": lambda machine, _: machine.stack.append(tuple(machine.pop_many(1))),
    "TUPLE2": lambda machine, _: machine.stack.append(tuple(machine.pop_many(2))),
    "TUPLE3": lambda machine, _: machine.stack.append(tuple(machine.pop_many(3))),
    "APPEND": _Machine.append,
    "APPENDS": _Machine.appends,
    "ADDITEMS": _Machine.add_items,
    "SETITEM": _Machine.set_item,
    "SETITEMS": _Machine.set_items,
    "GLOBAL": _Machine.global_text,
    "STACK_GLOBAL": _Machine.global_stack,
    "REDUCE": _Machine.call,
    "NEWOBJ": _Machine.call,
    "BUILD": _Machine.build,
    "BINPERSID": _Machine.persistent_id,
}
# By a global's module: kinds of file that people do try, and what to tell them.
HINTS = {
    "dnnlib.tflib.network": "as TensorFlow snapshots do: convert the file to the PyTorch layout first",
}


def _expect(value: Any, kind: type, what: str) -> Any:
    if type(value) is not kind:
        reject(f"{what} must be a {kind.__name__}, got {_described(value)}")
    return value


def _described(value: object) -> str:
    return shown(value) if isinstance(value, Global) else type(value).__name__


def _key(value: object) -> object:
    # Scalars only: the hash of a deeply nested tuple would overflow the C stack.
    if not isinstance(value, str | int | float | None):
        reject(f"a dict key or set member must be text or a number, got {_described(value)}")
    return value


def _is_state_dict_metadata(target: object, state: object) -> bool:
    """Whether this is the version metadata that torch attaches to a state dict."""
    return isinstance(target, dict) and isinstance(state, dict) and set(state) <= {"_metadata"}


def _check_depth(root: object) -> None:
    """Reject deeply nested values, level by level, so that later code may recurse."""
    level, seen = [root], {id(root)}
    for _ in range(MAX_DEPTH):
        children = {id(child): child for parent in level for child in _children(parent)}
        level = [child for key, child in children.items() if key not in seen]
        if not level:
            return
        seen.update(children)
    reject(f"values may be nested at most {MAX_DEPTH} deep", "nesting depth")


def _children(value: object) -> Iterator[object]:
    if isinstance(value, Record):
        yield value.state
    elif isinstance(value, dict):
        yield from value.values()
    elif isinstance(value, list | tuple):
        yield from value


# Readers: what stands in the place of each callable that a checkpoint names.


def new_dict(arguments: Arguments) -> dict[Any, Any]:
    if arguments:
        reject(f"an empty dict takes no arguments, got {len(arguments)}")
    return {}


def new_set(arguments: Arguments) -> set[Any]:
    (members,) = arguments
    return set(map(_key, _expect(members, list, "the members of a set")))


def drop(_: Arguments) -> Dropped:
    return Dropped()


def persistent_object(arguments: Arguments) -> Record:
    """A module of the reference as a record; its `module_src` is not read."""
    (meta,) = arguments
    _expect(meta, dict, "a persistent object's description")
    if (meta.get("type"), meta.get("version")) != ("class", 6):
        reject("a persistent object must be of type 'class' and version 6", "module type or version")
    return Record(
        _expect(meta["class_name"], str, "class_name"),
        _expect(meta["state"], dict, "a persistent object's state"),
    )


def rebuild_parameter(arguments: Arguments) -> StoredTensor:
    tensor, _, _ = arguments
    return tensor if isinstance(tensor, StoredTensor) else reject("a parameter must be a tensor")


def rebuild_tensor(arguments: Arguments) -> StoredTensor:
    """Build a tensor after checking that its elements lie inside the storage and are no more than the storage has.

    The second rule (no more elements than the storage has) stops a stride of 0 from asking for terabytes.
    """
    storage, offset, size, stride, _, hooks = arguments[:6]
    if not isinstance(storage, Storage) or hooks or len(arguments) > 7:
        reject("a tensor must be made of a storage and carry no hooks")
    numbers = (offset, *_expect(size, tuple, "a tensor's size"), *_expect(stride, tuple, "a tensor's stride"))
    if any(type(number) is not int or number < 0 for number in numbers):
        reject("a tensor's offset, size and stride must be whole numbers of at least 0", "tensor geometry")
    if len(size) != len(stride) or len(size) > MAX_DIMENSIONS:
        reject(f"a tensor must have one stride per dimension and at most {MAX_DIMENSIONS}", "tensor geometry")
    count = math.prod(size)
    last = offset + sum((n - 1) * step for n, step in zip(size, stride, strict=True)) if count else offset - 1
    if count > storage.count or last >= storage.count:
        reject(f"a tensor must lie inside its storage of {storage.count} numbers", "tensor geometry")
    return StoredTensor(storage, offset, size, stride)


def load_from_bytes(arguments: Arguments) -> Storage:
    """Read a separately pickled storage: three headers, a persistent id, its key, then the values."""
    (blob,) = arguments
    stream = io.BytesIO(_expect(blob, bytes, "a storage"))
    header = partial(interpret, stream, max_opcodes=MAX_STORAGE_OPCODES)
    magic, protocol, system = (header({}) for _ in range(3))
    if (magic, protocol) != (LEGACY_TORCH_MAGIC, LEGACY_TORCH_PROTOCOL):
        reject("a storage must be in the form of torch.save before version 1.6", "storage header")
    if not isinstance(system, dict) or system.get("little_endian") is not True:
        reject("a storage must be little-endian", "storage header")
    identity = header(STORAGE_READERS, persistent=storage_id)
    if not isinstance(identity, StorageId) or header({}) != [identity.key]:
        reject("a storage's stream must hold one storage", "storage header")
    count = int.from_bytes(stream.read(8), "little")
    start = stream.tell()
    if count != identity.count or len(blob) - start != count * identity.dtype.itemsize:
        reject(f"a storage must hold {identity.count} numbers, got {len(blob) - start} bytes", "storage size")
    return Storage(identity.dtype, count, lambda: memoryview(blob)[start:])


@dataclass(frozen=True, slots=True)
class StorageId:
    """torch's reference to a storage: type, key in the file, length."""

    dtype: np.dtype[Any]
    key: str
    count: int


def storage_id(value: object) -> StorageId:
    """Read the persistent id ('storage', type, key, device, length[, view]); today's torch saves no view."""
    if not isinstance(value, tuple) or len(value) not in (5, 6) or value[0] != "storage" or any(value[5:]):
        reject("a persistent id must name a storage", "BINPERSID")
    kind, key, count = value[1], value[2], value[4]
    if not isinstance(kind, Global) or kind.name not in STORAGE_DTYPES:
        reject("a storage must be of a known type", "storage type")
    if type(key) is not str or type(count) is not int or count < 0:
        reject("a storage must have a key and a length", "storage size")
    return StorageId(STORAGE_DTYPES[kind.name], key, count)


def numpy_dtype(arguments: Arguments) -> np.dtype[Any]:
    code = arguments[0]
    if code not in SCALAR_CODES:
        reject(f"a numpy dtype must be one of {', '.join(SCALAR_CODES)}, got {shown(code)}", "numpy.dtype")
    return np.dtype(f"<{code}")


def numpy_scalar(arguments: Arguments) -> object:
    dtype, data = arguments
    if not isinstance(dtype, np.dtype) or len(_expect(data, bytes, "a numpy scalar")) != dtype.itemsize:
        reject("a numpy scalar must have a dtype and as many bytes as that takes", "numpy scalar")
    return np.frombuffer(data, dtype)[0].item()


def latin1_bytes(arguments: Arguments) -> bytes:
    """Decode bytes as protocol 2 stores them: text with the same code points."""
    text, encoding = arguments
    if encoding != "latin1":
        reject(f"bytes must be stored as latin1, got {shown(encoding)}", "_codecs.encode")
    data: bytes = _expect(text, str, "bytes stored as text").encode("latin1")
    return data


BFLOAT16 = np.dtype([("bfloat16", "<u2")])  # numpy has no such number: its 16 bits, under its name
SCALAR_CODES = ("f4", "f8", "i4", "i8", "u1", "b1")
STORAGE_DTYPES: dict[str, np.dtype[Any]] = {
    "FloatStorage": np.dtype("<f4"),
    "DoubleStorage": np.dtype("<f8"),
    "HalfStorage": np.dtype("<f2"),
    "LongStorage": np.dtype("<i8"),
    "IntStorage": np.dtype("<i4"),
    "ShortStorage": np.dtype("<i2"),
    "CharStorage": np.dtype("i1"),
    "ByteStorage": np.dtype("u1"),
    "BoolStorage": np.dtype("?"),
    "BFloat16Storage": BFLOAT16,
}
STORAGE_READERS: Readers = {("torch", name): None for name in STORAGE_DTYPES}

SNAPSHOT_READERS: Readers = {
    ("torch_utils.persistence", "_reconstruct_persistent_obj"): persistent_object,
    ("dnnlib.util", "EasyDict"): new_dict,
    ("collections", "OrderedDict"): new_dict,
    ("builtins", "set"): new_set,
    ("torch._utils", "_rebuild_parameter"): rebuild_parameter,
    ("torch._utils", "_rebuild_tensor_v2"): rebuild_tensor,
    ("torch.storage", "_load_from_bytes"): load_from_bytes,
    ("numpy", "dtype"): numpy_dtype,
    ("numpy.core.multiarray", "scalar"): numpy_scalar,
    ("numpy._core.multiarray", "scalar"): numpy_scalar,
}
