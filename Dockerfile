# The images of rosacea, two targets; docs/OPERATIONS.md tells more:
#
#   docker build --target gateway-torchserve --tag rosacea .
#   docker build --target train --tag rosacea-train .
#
# torch is the package index's build, which brings the CUDA libraries and also runs without a GPU; of the host it needs
# the driver only. The smaller build for CPUs lies in an index of PyTorch's own, which you name:
#
#   docker build --build-arg TORCH=cpu --build-arg TORCH_INDEX=... --target gateway-torchserve --tag rosacea:cpu .
#
# BASE may be any image with glibc and Python 3.11 or later as python3, a CUDA one too. The default is Python's official
# image by the digest of its multi-platform index. A digest does not age well: renew it with your other images, by
# `docker buildx imagetools inspect python:3.11-slim-bookworm`.
ARG BASE=python:3.11.16-slim-bookworm@sha256:a36c24f9cbdf4fd0f52d67f0823eeac19c2028c637cecc392d97f980d4fec56b

# What all stages share. Nothing is installed that is not pinned by SHA-256 in locks/.
FROM ${BASE} AS build
ARG TORCH=cuda
ARG TORCH_INDEX=
ENV PIP_NO_CACHE_DIR=1 PIP_NO_DEPS=1 PIP_REQUIRE_HASHES=1 PIP_ONLY_BINARY=:all: PIP_DISABLE_PIP_VERSION_CHECK=1
WORKDIR /build
COPY locks locks
RUN python3 -m venv tools \
    && tools/bin/pip install -r locks/build.txt \
    && python3 -m venv --without-pip /opt/rosacea \
    && tools/bin/pip --python /opt/rosacea/bin/python install ${TORCH_INDEX:+--index-url="$TORCH_INDEX"} \
        -r "locks/torch-$TORCH.txt"
COPY pyproject.toml README.md LICENSE NOTICE ./
COPY model model
COPY serving serving
COPY clients clients
COPY protos protos
RUN PIP_REQUIRE_HASHES=0 tools/bin/pip wheel --no-index --no-build-isolation --wheel-dir wheels .

FROM build AS build-serving
RUN tools/bin/pip --python /opt/rosacea/bin/python install -r locks/serving.txt \
    && PIP_REQUIRE_HASHES=0 tools/bin/pip --python /opt/rosacea/bin/python install --no-index wheels/*.whl \
    && tools/bin/cyclonedx-py environment --of JSON -o /opt/rosacea/sbom.cdx.json /opt/rosacea/bin/python

FROM build AS build-train
RUN tools/bin/pip --python /opt/rosacea/bin/python install -r locks/train.txt \
    && PIP_REQUIRE_HASHES=0 tools/bin/pip --python /opt/rosacea/bin/python install --no-index wheels/*.whl \
    && tools/bin/cyclonedx-py environment --of JSON -o /opt/rosacea/sbom.cdx.json /opt/rosacea/bin/python

# Of a running container only /tmp is written: make the root read-only, and give it a tmpfs there, one that allows
# programs (`exec`), for Java unpacks its libraries there.
FROM ${BASE} AS runtime
ARG REVISION=unknown
LABEL org.opencontainers.image.licenses="Apache-2.0" org.opencontainers.image.revision="${REVISION}"
ENV PATH=/opt/rosacea/bin:$PATH \
    HOME=/tmp TMPDIR=/tmp \
    PYTHONDONTWRITEBYTECODE=1 PYTHONUNBUFFERED=1 \
    NVIDIA_VISIBLE_DEVICES=all NVIDIA_DRIVER_CAPABILITIES=compute,utility
WORKDIR /tmp
USER 10001:10001

# It listens for other machines, so it does not start without TLS and a way to know its callers, or ROSACEA_SERVE_INSECURE.
# Health is told in plain text at a port of its own, for probes: nothing else is.
# Draws whatever stands in models, ROSACEA_SERVE_MODELS or a file named by ROSACEA_SERVE_CONFIG; else the demo model.
FROM runtime AS gateway-torchserve
LABEL org.opencontainers.image.title="rosacea" \
      org.opencontainers.image.description="Synthetic faces with rosacea over gRPC; its SBOM is /opt/rosacea/sbom.cdx.json"
COPY --from=build-serving /opt/rosacea /opt/rosacea
ENV ROSACEA_SERVE_ADDRESS=0.0.0.0:7433 \
    ROSACEA_SERVE_HEALTH_ADDRESS=0.0.0.0:7434 \
    ROSACEA_SERVE_METRICS_ADDRESS=0.0.0.0:9464
EXPOSE 7433 7434 9464
HEALTHCHECK --interval=10s --timeout=5s --start-period=120s --retries=3 CMD ["rosacea", "health", "127.0.0.1:7434"]
ENTRYPOINT ["rosacea"]
CMD ["serve"]

# `docker run ... rosacea-train --data /data/faces.zip --outdir /runs/first --preset demo-64`; both folders are yours.
FROM runtime AS train
LABEL org.opencontainers.image.title="rosacea-train" \
      org.opencontainers.image.description="Trains StyleGAN2-ADA; its SBOM is /opt/rosacea/sbom.cdx.json"
COPY --from=build-train /opt/rosacea /opt/rosacea
HEALTHCHECK NONE
ENTRYPOINT ["rosacea", "train"]
CMD ["--help"]
