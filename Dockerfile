# docker compose up --build, or by hand (CPU wheels; leave TORCH_INDEX_URL out for CUDA):
#   docker build --build-arg TORCH_INDEX_URL=https://download.pytorch.org/whl/cpu -t siglip-embed .
ARG BASE_IMAGE=python:3.11-slim

# The runtime dependencies alone: the rest of pyproject.toml may change without torch being
# fetched again, because COPY --from compares contents.
FROM ${BASE_IMAGE} AS requirements
# Names of pyproject.toml's extras that the image is to have, say "heic otel".
ARG EXTRAS=
COPY pyproject.toml /
RUN python -c "import os, tomllib; \
project = tomllib.load(open('/pyproject.toml', 'rb'))['project']; \
extras = [project['optional-dependencies'][name] for name in os.environ.get('EXTRAS', '').split()]; \
print(*project['dependencies'], *sum(extras, []), sep='\n')" > /requirements.txt

FROM ${BASE_IMAGE} AS builder
ARG TORCH_INDEX_URL=
COPY --from=requirements /requirements.txt /build/
COPY constraints.txt /build/
# Torch's own test programs go: nothing loads them. So do its C++ headers, which serve only a
# compiler, and the image has none (docs/decisions/0003-container-image.md). torch_shm_manager stays:
# `import torch` looks for it.
RUN python -m venv --without-pip /opt/venv \
    && pip --python /opt/venv/bin/python install --no-cache-dir --disable-pip-version-check \
        ${TORCH_INDEX_URL:+--extra-index-url "$TORCH_INDEX_URL"} \
        -c /build/constraints.txt -r /build/requirements.txt \
    && cd /opt/venv/lib/python3*/site-packages/torch \
    && rm -rf test include \
    && find bin -mindepth 1 ! -name torch_shm_manager -delete
# Of the commands only this one: Ray wants a program to start (docs/decisions/0028-ray.md).
RUN printf '%s\n' '#!/opt/venv/bin/python' 'from app.scale.haproxy import main' 'main()' \
        > /opt/venv/bin/siglip-embed-haproxy \
    && chmod 755 /opt/venv/bin/siglip-embed-haproxy
# The source is run in place (WORKDIR and PYTHONPATH below) rather than installed: no build backend
# to fetch, and a changed line costs one small layer. The root is read-only later, so bytecode is
# compiled now, never to be compared with a source that cannot change.
COPY app /srv/app
COPY model /srv/model
COPY examples/shapes/*.json examples/shapes/*.model examples/shapes/*.safetensors /srv/examples/shapes/
RUN python -m compileall -q --invalidation-mode unchecked-hash /srv

FROM ${BASE_IMAGE}
# A name for the uid: libraries ask for it. A new volume takes over the cache folder's owner.
RUN groupadd --gid 10001 siglip \
    && useradd --uid 10001 --gid 10001 --no-create-home --home-dir /nonexistent \
        --shell /usr/sbin/nologin siglip \
    && install -d -o 10001 -g 10001 /cache/huggingface
COPY --from=builder /opt/venv /opt/venv
COPY --from=builder /srv /srv
ENV PATH=/opt/venv/bin:$PATH \
    PYTHONPATH=/srv \
    PYTHONUNBUFFERED=1 \
    PYTHONDONTWRITEBYTECODE=1 \
    SIGLIP_HOST=0.0.0.0 \
    HF_HOME=/cache/huggingface \
    MALLOC_ARENA_MAX=2
WORKDIR /srv
USER 10001:10001
EXPOSE 8000
# No proxy: HTTP_PROXY may be set for the hub, and must not be asked about this container.
HEALTHCHECK --interval=10s --timeout=5s --start-period=2m --retries=3 CMD ["python", "-c", \
    "import os; from urllib.request import ProxyHandler, build_opener; \
build_opener(ProxyHandler({})).open( \
f\"http://127.0.0.1:{os.environ.get('SIGLIP_PORT', '8000')}/healthz\", timeout=4)"]
CMD ["python", "-m", "app", "serve"]
