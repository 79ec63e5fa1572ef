# docker build --target cpu -t emotion2vec-service .        ONNX Runtime on the CPU, no torch
# docker build --target cuda -t emotion2vec-service:cuda .  torch with CUDA; also fetches and prepares models
#
# How to run the images: docs/deployment.md. Dependencies are installed in layers before the code, so that a change of
# code installs only the two wheels again. These images were never built with a container engine: tests/docker runs the
# install steps without one, and docs/unverified.md says what was not run.

# The version that the tests run on. For repeatable builds, pass a digest: --build-arg PYTHON_IMAGE=python@sha256:…
ARG PYTHON_IMAGE=python:3.11.15-slim-trixie

FROM ${PYTHON_IMAGE} AS base
ENV PIP_NO_CACHE_DIR=1 PIP_DISABLE_PIP_VERSION_CHECK=1 PIP_ROOT_USER_ACTION=ignore
WORKDIR /app
COPY pyproject.toml constraints.txt docker/requirements.py ./
COPY client/pyproject.toml client/

FROM base AS wheel
RUN pip install --constraint constraints.txt hatchling
COPY README.md LICENSE NOTICE ./
COPY client client
COPY service service
RUN pip wheel --no-deps --no-build-isolation --wheel-dir dist ./client .

FROM base AS runtime
# A fixed user ID: Kubernetes checks runAsNonRoot only against numbers.
RUN useradd --system --uid 10001 --no-create-home service && install --directory --owner service /cache
RUN python requirements.py > core.txt && pip install --constraint constraints.txt --requirement core.txt
COPY LICENSE NOTICE ./
ENV PYTHONUNBUFFERED=1 PYTHONDONTWRITEBYTECODE=1 SER_HOST=0.0.0.0 SER_CACHE_DIR=/cache
# /cache holds prepared models, so that a restart downloads nothing; /tmp holds uploads above 1 MiB.
VOLUME ["/cache", "/tmp"]
EXPOSE 8000
HEALTHCHECK --interval=10s --timeout=3s --start-period=30s CMD ["python", "/app/health.py"]
ENTRYPOINT ["emotion2vec-service"]
CMD ["serve"]

FROM runtime AS cuda
# torch's compiler calls a C compiler. It is not pinned, because Debian's mirrors keep no older versions.
# hadolint ignore=DL3008
RUN apt-get update && apt-get install --yes --no-install-recommends gcc libc6-dev && rm -rf /var/lib/apt/lists/*
RUN python requirements.py torch > torch.txt && pip install --constraint constraints.txt --requirement torch.txt
COPY docker/health.py ./
COPY configs configs
RUN --mount=type=bind,from=wheel,source=/app/dist,target=/app/dist pip install --no-deps --no-index dist/*.whl
# torch's wheels include CUDA; the driver comes from the host, through the NVIDIA Container Toolkit. Some libraries write
# to HOME, and /tmp is writable.
ENV SER_CONFIG=/app/configs/gpu.yaml NVIDIA_VISIBLE_DEVICES=all NVIDIA_DRIVER_CAPABILITIES=compute,utility HOME=/tmp
USER 10001:10001

# `docker build` without --target builds the last stage.
FROM runtime AS cpu
COPY docker/health.py ./
COPY configs configs
RUN --mount=type=bind,from=wheel,source=/app/dist,target=/app/dist pip install --no-deps --no-index dist/*.whl
ENV SER_CONFIG=/app/configs/cpu.yaml
USER 10001:10001
