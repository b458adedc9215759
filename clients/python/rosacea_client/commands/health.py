"""`rosacea health`: readiness of the service as an exit code, for containers and scripts."""

from typing import Annotated, Any

import grpc
import typer
from grpc_health.v1 import health_pb2, health_pb2_grpc

from rosacea_client.commands.options import CaFile, ClientCert, ClientKey, UseTls, wanted_tls
from rosacea_client.rpc.address import DEFAULT_ADDRESS, host_of
from rosacea_client.rpc.connection import ConnectionSettings, Tls
from rosacea_client.rpc.proxies import proxy_of

SERVING = "SERVING"
STATUSES = health_pb2.HealthCheckResponse.ServingStatus.keys()


def health(
    address: Annotated[
        str, typer.Argument(envvar="ROSACEA_ADDRESS", help="Where the service listens, HOST:PORT or unix:PATH.")
    ] = DEFAULT_ADDRESS,
    service: Annotated[str, typer.Option("--service", help="models/NAME; unset = the service as a whole.")] = "",
    timeout: Annotated[float, typer.Option("--timeout", min=0.001, help="Seconds to wait.")] = 3.0,
    tls: UseTls = False,
    ca_file: CaFile = None,
    client_cert: ClientCert = None,
    client_key: ClientKey = None,
) -> None:
    """Ask whether the service is SERVING: exit code 0 if so, 1 if not or if it does not answer. No key is needed."""
    status = ask(address, service, timeout, wanted_tls(tls, ca_file, client_cert, client_key))
    typer.echo(status)
    if status not in STATUSES and (proxy := proxy_of(address)):
        typer.echo(f"the question went through {proxy}; no_proxy={host_of(address)} makes it go directly", err=True)
    if status != SERVING:
        raise typer.Exit(1)


def ask(address: str, service: str, timeout_seconds: float, tls: Tls | None = None) -> str:
    """The health status, or the gRPC code of a failed call."""
    with ConnectionSettings(target=address, tls=tls).open() as channel:
        stub: Any = health_pb2_grpc.HealthStub(channel)
        try:
            answer = stub.Check(health_pb2.HealthCheckRequest(service=service), timeout=timeout_seconds)
        except grpc.RpcError as error:
            return str(error.code().name)
    return str(health_pb2.HealthCheckResponse.ServingStatus.Name(answer.status))
