# docker build --target cpu -t emotion2vec-service .        ONNX Runtime on the CPU, no torch
# docker build --target cuda -t emotion2vec-service:cuda .  torch with CUDA; also fetches and prepares models
#
# How to run them: docs/deployment.md. Layers go from what changes seldom to what changes often: after a change of code
# only the service itself is installed again. Where this was written no container engine was at hand: tests/docker runs
# the install steps without one, and docs/unverified.md says what was never run.

# The version that the tests run on. A digest makes builds repeatable: --build-arg PYTHON_IMAGE=python@sha256:…
ARG PYTHON_IMAGE=python:3.11.15-slim-trixie

FROM ${PYTHON_IMAGE} AS base
ENV PIP_NO_CACHE_DIR=1 PIP_DISABLE_PIP_VERSION_CHECK=1 PIP_ROOT_USER_ACTION=ignore
WORKDIR /app
COPY pyproject.toml constraints.txt docker/requirements.py ./

FROM base AS wheel
RUN pip install --constraint constraints.txt hatchling
COPY README.md LICENSE ./
COPY service service
RUN pip wheel --no-deps --no-build-isolation --wheel-dir dist .

FROM base AS runtime
# A number, not the name: only so can Kubernetes see that this is not root.
RUN useradd --system --uid 10001 --no-create-home service && install --directory --owner service /cache
RUN python requirements.py > core.txt && pip install --constraint constraints.txt --requirement core.txt
ENV PYTHONUNBUFFERED=1 PYTHONDONTWRITEBYTECODE=1 SER_HOST=0.0.0.0 SER_CACHE_DIR=/cache
# Prepared models, so that a restart fetches nothing; and uploads above 1 MiB, which spool to files.
VOLUME ["/cache", "/tmp"]
EXPOSE 8000
HEALTHCHECK --interval=10s --timeout=3s --start-period=30s CMD ["python", "/app/health.py"]
ENTRYPOINT ["emotion2vec-service"]
CMD ["serve"]

FROM runtime AS cuda
# torch's compiler needs one for C. Its version is Debian's: mirrors keep no older ones to pin.
# hadolint ignore=DL3008
RUN apt-get update && apt-get install --yes --no-install-recommends gcc libc6-dev && rm -rf /var/lib/apt/lists/*
RUN python requirements.py torch > torch.txt && pip install --constraint constraints.txt --requirement torch.txt
COPY docker/health.py ./
COPY configs configs
RUN --mount=type=bind,from=wheel,source=/app/dist,target=/app/dist pip install --no-deps --no-index dist/*.whl
# torch's wheels bring CUDA along; the driver is the host's, through the NVIDIA Container Toolkit.
# HOME is for libraries that keep files there, since little else is writable.
ENV SER_CONFIG=/app/configs/gpu.yaml NVIDIA_VISIBLE_DEVICES=all NVIDIA_DRIVER_CAPABILITIES=compute,utility HOME=/tmp
USER 10001:10001

# The last one is what `docker build` makes without --target.
FROM runtime AS cpu
COPY docker/health.py ./
COPY configs configs
RUN --mount=type=bind,from=wheel,source=/app/dist,target=/app/dist pip install --no-deps --no-index dist/*.whl
ENV SER_CONFIG=/app/configs/cpu.yaml
USER 10001:10001
