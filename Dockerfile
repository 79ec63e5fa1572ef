# docker build --target cpu -t emotion2vec-service .        slim: ONNX Runtime, no torch
# docker build --target cuda -t emotion2vec-service:cuda .  torch with CUDA; run with --gpus all
# Not built yet where this was written: see docs/unverified.md.

FROM python:3.12-slim AS base
ENV PYTHONUNBUFFERED=1 PYTHONDONTWRITEBYTECODE=1 PIP_NO_CACHE_DIR=1 PIP_DISABLE_PIP_VERSION_CHECK=1 \
    SER_HOST=0.0.0.0 SER_CACHE_DIR=/cache
RUN useradd --system --uid 10001 --no-create-home service && install -d -o service /cache
WORKDIR /app
COPY pyproject.toml README.md LICENSE ./
COPY service service
# Prepared models, so that a restart fetches nothing; uploads above 1 MiB spool to /tmp.
VOLUME ["/cache", "/tmp"]
EXPOSE 8000
# Alive, not ready: a container that loads its model must not be killed for it.
HEALTHCHECK --interval=10s --timeout=3s --start-period=10s \
    CMD ["python", "-c", "import urllib.request as r; r.urlopen('http://127.0.0.1:8000/livez', timeout=2)"]
ENTRYPOINT ["emotion2vec-service"]
CMD ["serve"]

FROM base AS cuda
RUN pip install ".[torch]"
USER service

FROM base AS cpu
RUN pip install .
USER service
