from __future__ import annotations

import grpc
import pytest
from google.protobuf.duration_pb2 import Duration
from google.rpc import error_details_pb2

from rosacea_client import FaceClient, errors
from rosacea_contract.reasons import DOMAIN, Quota, Reason, Violation, show

from .fakes import FakeFaces, failure

ROWS = [
    (grpc.StatusCode.CANCELLED, errors.Cancelled),
    (grpc.StatusCode.UNKNOWN, errors.ServerError),
    (grpc.StatusCode.INVALID_ARGUMENT, errors.InvalidRequest),
    (grpc.StatusCode.DEADLINE_EXCEEDED, errors.DeadlineExceeded),
    (grpc.StatusCode.NOT_FOUND, errors.NotFound),
    (grpc.StatusCode.ALREADY_EXISTS, errors.ServerError),
    (grpc.StatusCode.PERMISSION_DENIED, errors.Forbidden),
    (grpc.StatusCode.RESOURCE_EXHAUSTED, errors.Overloaded),
    (grpc.StatusCode.FAILED_PRECONDITION, errors.InvalidRequest),
    (grpc.StatusCode.ABORTED, errors.ServerError),
    (grpc.StatusCode.OUT_OF_RANGE, errors.InvalidRequest),
    (grpc.StatusCode.UNIMPLEMENTED, errors.ServerError),
    (grpc.StatusCode.INTERNAL, errors.ServerError),
    (grpc.StatusCode.UNAVAILABLE, errors.Unavailable),
    (grpc.StatusCode.DATA_LOSS, errors.IntegrityError),
    (grpc.StatusCode.UNAUTHENTICATED, errors.Unauthenticated),
]


@pytest.mark.parametrize(("code", "kind"), ROWS)
def test_every_status_arrives_as_its_own_error(
    service: FakeFaces, address: str, code: grpc.StatusCode, kind: type[errors.FaceError]
) -> None:
    info = error_details_pb2.ErrorInfo(reason="SOME_REASON", domain=DOMAIN, metadata={"max": "3"})
    service.failures = [failure(code, "what went wrong", info)] * 4

    with FaceClient(address) as client, pytest.raises(errors.FaceError) as caught:
        client.model()

    assert type(caught.value) is kind
    assert str(caught.value) == "what went wrong"
    assert (caught.value.reason, caught.value.metadata) == ("SOME_REASON", {"max": "3"})


def test_the_table_has_every_code() -> None:
    assert set(errors.STATUS) == set(grpc.StatusCode) - {grpc.StatusCode.OK} == {code for code, _ in ROWS}


def test_field_violations_arrive_typed(service: FakeFaces, address: str) -> None:
    violation = error_details_pb2.BadRequest.FieldViolation(
        field="spec.z", description="z is odd", reason="LATENT_LENGTH_MISMATCH"
    )
    info = error_details_pb2.ErrorInfo(reason="LATENT_LENGTH_MISMATCH", domain=DOMAIN)
    details = [info, error_details_pb2.BadRequest(field_violations=[violation])]
    service.failures = [failure(grpc.StatusCode.INVALID_ARGUMENT, "z is odd", *details)]

    with FaceClient(address) as client, pytest.raises(errors.InvalidRequest) as caught:
        client.generate(seeds=1)

    assert caught.value.violations == (Violation("spec.z", Reason.LATENT_LENGTH_MISMATCH, "z is odd"),)


def test_retry_info_tells_when_to_come_back(service: FakeFaces, address: str) -> None:
    retry = error_details_pb2.RetryInfo(retry_delay=Duration(seconds=90, nanos=500_000_000))
    service.failures = [failure(grpc.StatusCode.RESOURCE_EXHAUSTED, "the queue is full", retry)]

    with FaceClient(address) as client, pytest.raises(errors.Overloaded) as caught:
        client.generate(seeds=1)

    assert caught.value.retry_after_seconds == 90.5


def test_a_share_that_is_used_up_is_told_apart_from_a_full_service(service: FakeFaces, address: str) -> None:
    violation = error_details_pb2.QuotaFailure.Violation(subject="clientip", description="you have your share")
    details = error_details_pb2.QuotaFailure(violations=[violation])
    service.failures = [
        failure(grpc.StatusCode.RESOURCE_EXHAUSTED, "not now", details),
        failure(grpc.StatusCode.RESOURCE_EXHAUSTED, "not now"),
    ]

    with FaceClient(address) as client:
        with pytest.raises(errors.Overloaded) as own:
            client.generate(seeds=1)
        with pytest.raises(errors.Overloaded) as full:
            client.generate(seeds=1)

    assert own.value.quotas == (Quota("clientip", "you have your share"),)
    assert full.value.quotas == ()


def test_details_of_another_domain_are_not_ours(service: FakeFaces, address: str) -> None:
    info = error_details_pb2.ErrorInfo(reason="SEED_OUT_OF_RANGE", domain="elsewhere.example")
    service.failures = [failure(grpc.StatusCode.ABORTED, "odd", info)]

    with FaceClient(address) as client, pytest.raises(errors.ServerError) as caught:
        client.generate(seeds=1)

    assert caught.value.reason == ""


def test_no_grpc_error_hides_in_the_traceback(service: FakeFaces, address: str) -> None:
    service.failures = [failure(grpc.StatusCode.ABORTED, "odd")]

    with FaceClient(address) as client, pytest.raises(errors.ServerError) as caught:
        client.generate(seeds=1)

    assert caught.value.__suppress_context__
    assert not isinstance(caught.value, grpc.RpcError)


def test_a_value_is_shown_in_at_most_80_characters() -> None:
    for value in ("x" * 1000, 10**100, 10**5000, [1] * 1000, {"a" * 100: "b" * 100}):
        assert len(show(value)) <= 80
