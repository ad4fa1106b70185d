# Everturn's image: the API, the workers, migrations and every other command of `everturn`.
#
# docker buildx build --build-arg BUILD_ID="$(git rev-parse --short=12 HEAD)" \
#     --build-arg SOURCE_DATE_EPOCH="$(git log -1 --format=%ct)" --tag everturn .
#
# With the same commit, SOURCE_DATE_EPOCH and `--output type=image,rewrite-timestamp=true`, every
# build gives the same layers: the base is pinned by digest, packages by hash, bytecode by content.

ARG PYTHON_IMAGE=docker.io/library/python:3.13.15-slim-trixie@sha256:7c61056e61ac89e852de05f3dc6fa51a6dd2181797bceed46aa725dd7cb2cd3b

FROM ${PYTHON_IMAGE} AS build

SHELL ["/bin/bash", "-euo", "pipefail", "-c"]
WORKDIR /src

# Bytecode is compiled here, since the running container can't write; it is checked by no date, so
# that it is valid wherever it is copied.
ENV PIP_DISABLE_PIP_VERSION_CHECK=1 \
    PYC_INVALIDATION_MODE=unchecked-hash \
    PYTHONDONTWRITEBYTECODE=1 \
    UV_LINK_MODE=copy \
    UV_NO_CACHE=1

COPY . .
ARG SOURCE_DATE_EPOCH=0
RUN python -m venv /opt/everturn \
    && requirements/install /opt/everturn production \
    && /opt/everturn/bin/uv pip uninstall --quiet --python /opt/everturn/bin/python pip setuptools uv \
    && find /opt/everturn \( -name .lock -o -name uv_cache.json -o -name direct_url.json \) -delete \
    && find /opt/everturn -name RECORD -exec sed -i '/uv_cache.json\|direct_url.json/d' {} + \
    && python -m compileall -q -j 0 --invalidation-mode unchecked-hash \
        /opt/everturn/lib/python3.*/site-packages \
    && find /opt/everturn -exec touch --no-dereference --date="@${SOURCE_DATE_EPOCH}" {} +

FROM ${PYTHON_IMAGE}

ARG BUILD_ID=""
ARG REVISION=""
ARG VERSION=0.1.0
LABEL org.opencontainers.image.title="Everturn" \
      org.opencontainers.image.description="A backend for AI chat in which every chat turn is a durable Temporal workflow." \
      org.opencontainers.image.licenses="Apache-2.0" \
      org.opencontainers.image.version="${VERSION}" \
      org.opencontainers.image.revision="${REVISION}" \
      io.everturn.build-id="${BUILD_ID}"

# Before the user: what is installed belongs to root.
COPY --from=build /opt/everturn /opt/everturn
WORKDIR /opt/everturn

# Numbers, so that Kubernetes can check that the user is not root.
USER 10001:10001

# MCP servers over stdio keep their folders below HOME, which is a volume or a tmpfs.
ENV EVERTURN_API_HOST=0.0.0.0 \
    EVERTURN_BUILD_ID=${BUILD_ID} \
    EVERTURN_METRICS_HOST=0.0.0.0 \
    EVERTURN_METRICS_PORT=9464 \
    HOME=/tmp \
    PATH=/opt/everturn/bin:/usr/local/bin:/usr/bin:/bin \
    PYTHONDONTWRITEBYTECODE=1 \
    PYTHONUNBUFFERED=1

EXPOSE 8000 9464
STOPSIGNAL SIGTERM

# Of whichever process runs in here: all serve their liveness at the port of their metrics.
HEALTHCHECK --interval=10s --timeout=5s --start-period=30s --retries=3 \
    CMD ["python", "-c", "import os, urllib.request as r; r.urlopen('http://127.0.0.1:' + os.environ['EVERTURN_METRICS_PORT'] + '/live', timeout=4)"]

ENTRYPOINT ["everturn"]
CMD ["--help"]
