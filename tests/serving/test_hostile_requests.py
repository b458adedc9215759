"""Requests that make no sense, by every field, over a real connection: refused in our words, and never drawn."""

from __future__ import annotations

import gc
import math
import random
from typing import TYPE_CHECKING, Any

import grpc
import psutil
import pytest
from google.protobuf.message import DecodeError, Message
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from rosacea.v1 import faces_pb2 as pb
from rosacea_contract.reasons import DOMAIN, Reason
from rosacea_contract.resolved import ModelLimits, resolve
from rosacea_contract.spec import MAX_STYLE_MIXES, FaceSpec, InvalidSpec

from .hosted import CONDITIONAL as CONFIG
from .hosted import MAX_IMAGES, PRIVATE, REQUESTS, SETTINGS, Hosted, hosted
from .samples import LABEL, SAMPLES

if TYPE_CHECKING:
    from collections.abc import Iterator

MANY = settings(
    max_examples=40, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture, HealthCheck.too_slow]
)
REFUSALS = {grpc.StatusCode.INVALID_ARGUMENT, grpc.StatusCode.NOT_FOUND}
MALFORMED = "the request is not a valid protobuf message"

UINT32, UINT64, INT32 = st.integers(0, 2**32 - 1), st.integers(0, 2**64 - 1), st.integers(-(2**31), 2**31 - 1)
BEYOND = st.sampled_from([2**32, 2**63, 2**64 - 1]) | st.integers(2**32, 2**64 - 1)
UNKNOWN = INT32.filter(lambda number: not 0 <= number <= 3)
TEXT = st.text(st.characters(exclude_categories=["Cs"]), min_size=1, max_size=300)
FLOATS = st.lists(st.floats(width=32, allow_nan=False, allow_infinity=False), max_size=20)
NOT_FINITE = st.sampled_from([math.nan, math.inf, -math.inf])
SEEDS = pb.Seeds(values=[1])


def with_one(values: st.SearchStrategy[list[Any]], odd: st.SearchStrategy[Any]) -> st.SearchStrategy[list[Any]]:
    """The lists with one odd element somewhere."""
    made = st.tuples(values, odd, st.integers(0, 20))
    return made.map(lambda parts: [*parts[0][: parts[2]], parts[1], *parts[0][parts[2] :]])


def bad_numbers(length: int) -> st.SearchStrategy[list[float]]:
    """Numbers that are no latents of that length, or not finite."""
    return FLOATS.filter(lambda values: not values or len(values) % length) | with_one(FLOATS, NOT_FINITE)


def bad_latents(length: int) -> st.SearchStrategy[pb.Latents]:
    data = st.binary(min_size=1, max_size=70).filter(lambda data: len(data) % (4 * length))
    return (
        bad_numbers(length).map(lambda values: pb.Latents(values=values))
        | data.map(lambda data: pb.Latents(data=data))
        | st.just(pb.Latents(data=b"\x00\x00\xc0\x7f" * length))
        | st.just(pb.Latents(values=[0.0] * length * (MAX_IMAGES + 1)))
        | st.just(pb.Latents(values=[0.0] * length, data=bytes(4 * length)))
    )


def bad_labels() -> st.SearchStrategy[pb.Label]:
    lengths = FLOATS.filter(lambda values: len(values) != CONFIG.c_dim) | with_one(st.just([0.0] * 2), NOT_FINITE)
    return (
        st.integers(CONFIG.c_dim, 2**32 - 1).map(lambda index: pb.Label(class_index=index))
        | lengths.map(lambda values: pb.Label(vector=pb.LabelVector(values=values)))
        | st.just(pb.Label())
    )


def bad_mixes() -> st.SearchStrategy[list[pb.StyleMix]]:
    rows = st.tuples(UINT32, UINT32).filter(lambda ends: not ends[0] < ends[1] <= CONFIG.num_ws)
    bad = rows.map(lambda ends: pb.StyleMix(seed=1, first_row=ends[0], end_row=ends[1])) | BEYOND.map(
        lambda seed: pb.StyleMix(seed=seed, end_row=1)
    )
    good = [pb.StyleMix(end_row=1)]
    too_many = st.integers(MAX_STYLE_MIXES + 1, 300).map(lambda count: good * count)
    return with_one(st.just(good), bad) | too_many


def alone(name: str, values: st.SearchStrategy[Any], **others: Any) -> st.SearchStrategy[dict[str, Any]]:
    """A field of the name with such a value, beside fields that are as they should be."""
    return values.map(lambda value: {name: value, **others})


BAD_PSI = NOT_FINITE | st.sampled_from([1e308, -1e308, 2.0000001]) | st.floats().filter(lambda psi: not -2 <= psi <= 2)
BAD_RANGES = (
    st.tuples(UINT64, UINT64).filter(lambda pair: not 1 <= pair[1] <= MAX_IMAGES or sum(pair) > 2**32)
    | BEYOND.map(lambda start: (start, 1)) | st.just((2**32 - 1, 2)) | st.just((0, 2**64 - 1))
).map(lambda pair: pb.SeedRange(start=pair[0], count=pair[1]))  # fmt: skip
BAD_SEEDS = (
    with_one(st.lists(UINT64, max_size=5), BEYOND)
    | st.just([])
    | st.lists(UINT32, min_size=MAX_IMAGES + 1, max_size=50)
).map(lambda values: pb.Seeds(values=values))
BAD_MODELS = st.sampled_from(["models/", "models/x@", "demo", "models/../x", "models/demo\n"]) | TEXT.filter(
    lambda text: not text.startswith("models/demo")
)

# For each field of a spec, the fields of requests that are wrong because of it alone.
COMMON: dict[str, st.SearchStrategy[dict[str, Any]]] = {
    "model": alone("model", BAD_MODELS, seeds=SEEDS, label=LABEL),
    "seeds": alone("seeds", BAD_SEEDS, label=LABEL),
    "seed_range": alone("seed_range", BAD_RANGES, label=LABEL),
    "z": alone("z", bad_latents(CONFIG.z_dim), label=LABEL),
    "truncation_psi": alone("truncation_psi", BAD_PSI, seeds=SEEDS, label=LABEL),
    "label": alone("label", bad_labels(), seeds=SEEDS),
}
ROWS = st.integers(CONFIG.num_ws + 1, 2**32 - 1)
BAD_FACES = COMMON | {
    "w": alone("w", bad_latents(CONFIG.w_dim)),
    "ws": alone("ws", bad_latents(CONFIG.w_dim * CONFIG.num_ws)),
    "truncation_cutoff": alone("truncation_cutoff", ROWS, seeds=SEEDS, label=LABEL),
    "style_mixes": alone("style_mixes", bad_mixes(), seeds=SEEDS, label=LABEL),
    "noise_mode": alone("noise_mode", UNKNOWN, seeds=SEEDS, label=LABEL),
    "noise_seed": alone("noise_seed", BEYOND, noise_mode=pb.NOISE_MODE_RANDOM, seeds=SEEDS, label=LABEL)
    | alone("noise_seed", UINT64, seeds=SEEDS, label=LABEL),
    "format": alone("format", UNKNOWN, seeds=SEEDS, label=LABEL),
    "jpeg_quality": alone("jpeg_quality", UINT32, seeds=SEEDS, label=LABEL)
    | alone(
        "jpeg_quality", st.just(0) | st.integers(101, 2**32 - 1), format=pb.IMAGE_FORMAT_JPEG, seeds=SEEDS, label=LABEL
    ),
}
WS = pb.LATENT_SPACE_WS
BAD_LATENTS = COMMON | {
    "space": alone("space", UNKNOWN, seeds=SEEDS, label=LABEL),
    "truncation_cutoff": alone("truncation_cutoff", ROWS, space=WS, seeds=SEEDS, label=LABEL)
    | alone("truncation_cutoff", UINT32, seeds=SEEDS, label=LABEL),
    "style_mixes": alone("style_mixes", bad_mixes(), space=WS, seeds=SEEDS, label=LABEL)
    | alone("style_mixes", st.just([pb.StyleMix(end_row=1)]), seeds=SEEDS, label=LABEL),
}  # fmt: skip
# The same for the requests around the specs. A page token may be anything.
BAD_REQUESTS: dict[str, tuple[str, st.SearchStrategy[dict[str, Any]]]] = {
    "start_index": (
        "StreamFaces",
        alone("start_index", st.integers(1, 2**64 - 1), spec=pb.FaceSpec(seeds=SEEDS, label=LABEL)),
    ),
    "name": ("GetModel", alone("name", BAD_MODELS)),
    "page_size": ("ListModels", alone("page_size", st.integers(-(2**31), -1))),
}
FREE = {"spec", "page_token"}
CASES = [
    *(("GenerateFaces", name) for name in BAD_FACES),
    *(("StreamFaces", name) for name in BAD_FACES),
    *(("MapLatents", name) for name in BAD_LATENTS),
    *((method, name) for name, (method, _) in BAD_REQUESTS.items()),
]


@pytest.fixture(scope="module")
def service() -> Iterator[Hosted]:
    with hosted(config=CONFIG) as running:
        yield running


def bad_requests(method: str, name: str) -> st.SearchStrategy[Message]:
    if name in BAD_REQUESTS:
        made = BAD_REQUESTS[name][1].map(lambda fields: REQUESTS[method](**fields))
    elif method == "MapLatents":
        made = BAD_LATENTS[name].map(lambda fields: pb.MapLatentsRequest(spec=pb.LatentSpec(**fields)))
    elif method == "StreamFaces":
        # A stream may be long: what is too many faces for one answer is none too many for it.
        made = (
            BAD_FACES[name]
            .filter(lambda fields: not is_long(fields))
            .map(lambda fields: pb.StreamFacesRequest(spec=pb.FaceSpec(**fields)))
        )
    else:
        made = BAD_FACES[name].map(lambda fields: pb.GenerateFacesRequest(spec=pb.FaceSpec(**fields)))
    return made


def is_long(fields: dict[str, Any]) -> bool:
    """Whether the only thing wrong is that so many faces do not go into one answer."""
    limits = ModelLimits(
        name="x", z_dim=CONFIG.z_dim, w_dim=CONFIG.w_dim, num_ws=CONFIG.num_ws, label_dim=CONFIG.c_dim,
        max_images=SETTINGS.max_images_per_stream,
    )  # fmt: skip
    try:
        resolve(FaceSpec.from_pb(pb.FaceSpec(**fields)), limits)
    except InvalidSpec:
        return False
    return "model" not in fields


def test_every_field_of_every_request_has_bad_values_here() -> None:
    assert set(BAD_FACES) == set(pb.FaceSpec.DESCRIPTOR.fields_by_name)
    assert set(BAD_LATENTS) == set(pb.LatentSpec.DESCRIPTOR.fields_by_name)
    assert {name for kind in REQUESTS.values() for name in kind.DESCRIPTOR.fields_by_name} == set(BAD_REQUESTS) | FREE
    assert set(REQUESTS) == {method.name for method in pb.DESCRIPTOR.services_by_name["FaceService"].methods}


@pytest.mark.parametrize(("method", "name"), CASES)
def test_a_bad_field_is_named_and_never_reaches_a_worker(service: Hosted, method: str, name: str) -> None:
    @MANY
    @given(bad_requests(method, name))
    def check(request: Message) -> None:
        check_refused(service, method, name, request)

    jobs = len(service.workers.jobs)
    check()

    assert len(service.workers.jobs) == jobs


def check_refused(service: Hosted, method: str, name: str, request: Message) -> None:
    refusal = service.refusal(method, request.SerializeToString())
    assert refusal, f"this was answered: {request}"
    code, message, details = refusal
    assert code in REFUSALS
    check_refusal(code, message, details, name)


def test_without_the_check_a_bad_field_is_answered_and_that_is_found(
    service: Hosted, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(FaceSpec, "from_pb", lambda message: FaceSpec(seeds=[1], class_index=1))
    bad = pb.GenerateFacesRequest(spec=pb.FaceSpec(seeds=SEEDS, truncation_psi=math.nan))
    jobs = len(service.workers.jobs)

    with pytest.raises(AssertionError, match="this was answered"):
        check_refused(service, "GenerateFaces", "truncation_psi", bad)

    assert len(service.workers.jobs) == jobs + 1, "the count of jobs does not tell what reaches a worker"


def check_refusal(code: grpc.StatusCode, message: str, details: dict[str, Any], name: str) -> None:
    info = details["ErrorInfo"]
    assert info.domain == DOMAIN
    assert info.reason in Reason.__members__
    violations = details["BadRequest"].field_violations
    path = name if name in BAD_REQUESTS else f"spec.{name}"
    assert {each.field for each in violations if not each.field.startswith(path)} == set()
    assert all(each.description and each.reason in Reason.__members__ for each in violations)
    assert message
    if name not in ("model", "name"):  # these are repeated, and may be anything
        assert not PRIVATE.search(message + " ".join(each.description for each in violations))


@st.composite
def wild_specs(draw: st.DrawFn) -> pb.FaceSpec:
    """Anything that can be put into the message, bad and good fields side by side."""
    fields: dict[str, Any] = {}
    for name in draw(st.lists(st.sampled_from(sorted(BAD_FACES)), max_size=5, unique=True)):
        fields |= draw(BAD_FACES[name])
    for source in ("seeds", "seed_range", "z", "w", "ws"):
        if source in fields and len({"seeds", "seed_range", "z", "w", "ws"} & set(fields)) > 1:
            del fields[source]
    return pb.FaceSpec(**fields)


@settings(MANY, max_examples=300)
@given(spec=wild_specs())
def test_any_request_is_answered_or_refused(service: Hosted, spec: pb.FaceSpec) -> None:
    jobs = len(service.workers.jobs)

    refusal = service.refusal("GenerateFaces", pb.GenerateFacesRequest(spec=spec).SerializeToString())

    if refusal:
        assert refusal[0] in REFUSALS
        assert refusal[2]["BadRequest"].field_violations
        assert len(service.workers.jobs) == jobs


def malformed(source: random.Random, method: str) -> bytes:
    """Bytes that are no message: made up, cut off, bent, nested without end, or with text that is no text."""
    good = SAMPLES[method]
    while True:
        bent = bytearray(good)
        for _ in range(source.randint(1, 4)):
            bent[source.randrange(len(bent))] = source.randrange(256)
        data = source.choice([
            source.randbytes(source.randint(1, 300)),
            good[: source.randrange(len(good))],
            bytes(bent),
            b"\x0b" * source.randint(1, 20_000),
            b"\x0a" + bytes([source.randint(100, 127)]) + good,
            b"\x0a\x03\xff\xfe\xfd",
        ])  # fmt: skip
        try:
            REQUESTS[method].FromString(data)
        except DecodeError:
            return data


async def test_a_server_that_leaves_parsing_to_grpc_tells_of_its_classes() -> None:
    """Why the service parses for itself."""
    parsing: Any = grpc.unary_unary_rpc_method_handler(
        lambda request, context: request, request_deserializer=pb.GenerateFacesRequest.FromString
    )
    server = grpc.aio.server()
    server.add_generic_rpc_handlers(
        (grpc.method_handlers_generic_handler("rosacea.v1.FaceService", {"GenerateFaces": parsing}),)
    )
    port = server.add_insecure_port("127.0.0.1:0")
    await server.start()
    async with grpc.aio.insecure_channel(f"127.0.0.1:{port}") as channel:
        call: Any = channel.unary_unary("/rosacea.v1.FaceService/GenerateFaces")
        with pytest.raises(grpc.aio.AioRpcError) as error:
            await call(b"\xff\xff\xff", timeout=120)
    await server.stop(0)

    assert error.value.code() is grpc.StatusCode.UNKNOWN
    assert PRIVATE.search(error.value.details() or "")


def send_malformed(service: Hosted, count: int, source: random.Random) -> None:
    jobs = len(service.workers.jobs)
    for number in range(count):
        method = list(REQUESTS)[number % len(REQUESTS)]
        data = malformed(source, method)
        refusal = service.refusal(method, data)
        assert refusal is not None
        code, message, details = refusal
        assert (code, message) == (grpc.StatusCode.INVALID_ARGUMENT, MALFORMED), data.hex()
        assert details["ErrorInfo"].reason == Reason.MALFORMED_REQUEST
    assert len(service.workers.jobs) == jobs


def test_bytes_that_are_no_message_are_refused_in_one_sentence(service: Hosted) -> None:
    send_malformed(service, 300, random.Random(0))


@pytest.mark.slow
@pytest.mark.parametrize("count", [400, pytest.param(2_000, marks=pytest.mark.long)])
def test_thousands_of_malformed_messages_leave_the_service_as_it_was(service: Hosted, count: int) -> None:
    """A leak shows in each round; an allocator that takes another page or two does so in some."""
    process, source, grown = psutil.Process(), random.Random(1), []
    for _ in range(5):
        gc.collect()
        before = process.memory_info().rss
        send_malformed(service, count, source)
        gc.collect()
        grown.append(process.memory_info().rss - before)

    assert min(grown) < 2**17, f"bytes of growth in rounds of {count} messages: {grown}"
    print(f"S18: RSS {[round(growth / 2**10) for growth in grown]} KiB in rounds of {count} malformed messages")
    assert service.refusal("GenerateFaces", SAMPLES["GenerateFaces"]) is None


@pytest.mark.parametrize(
    ("name", "method"),
    [("grpc.health.v1.Health", "Check"), ("grpc.health.v1.Health", "Watch")],
)
def test_the_other_services_refuse_such_bytes_too(service: Hosted, name: str, method: str) -> None:
    with pytest.raises(grpc.RpcError) as error:
        service.send(method, b"\xff\xff\xff", service=name)

    assert error.value.code() is grpc.StatusCode.INVALID_ARGUMENT
    assert error.value.details() == MALFORMED


@pytest.mark.parametrize("version", ["v1alpha", "v1"])
def test_so_does_reflection(service: Hosted, version: str) -> None:
    call: Any = service.channel.stream_stream(f"/grpc.reflection.{version}.ServerReflection/ServerReflectionInfo")

    with pytest.raises(grpc.RpcError) as error:
        list(call(iter([b"\xff\xff\xff"]), timeout=120))

    assert error.value.code() is grpc.StatusCode.INVALID_ARGUMENT
    assert error.value.details() == MALFORMED


MILLION = pb.GenerateFacesRequest(spec=pb.FaceSpec(seeds=pb.Seeds(values=[1] * 10**6))).SerializeToString()
SIZE_ATTACKS: dict[str, tuple[bytes, dict[str, Any], grpc.StatusCode]] = {
    "5 MiB": (bytes(5 * 2**20), {}, grpc.StatusCode.RESOURCE_EXHAUSTED),
    "gzip bomb": (bytes(64 * 2**20), {"compression": grpc.Compression.Gzip}, grpc.StatusCode.RESOURCE_EXHAUSTED),
    "60 kB of metadata": (b"", {"metadata": [("x-a", "a" * 60_000)]}, grpc.StatusCode.RESOURCE_EXHAUSTED),
    "20,000 deep": (b"\x0b" * 20_000 + b"\x0c" * 20_000, {}, grpc.StatusCode.INVALID_ARGUMENT),
    "a million seeds": (MILLION, {}, grpc.StatusCode.INVALID_ARGUMENT),
}


@pytest.mark.parametrize("attack", SIZE_ATTACKS)
def test_a_request_of_great_size_is_refused(service: Hosted, attack: str) -> None:
    data, options, code = SIZE_ATTACKS[attack]
    call: Any = service.channel.unary_unary("/rosacea.v1.FaceService/GenerateFaces")

    with pytest.raises(grpc.RpcError) as error:
        call(data, timeout=120, **options)

    assert error.value.code() is code
    assert service.refusal("GenerateFaces", SAMPLES["GenerateFaces"]) is None
