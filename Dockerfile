# Two images: `runtime` predicts with exported ONNX files, `full` also trains and exports. docs/install.md says how to run them.
#   docker build --target runtime --tag supersimplenet:runtime .
#   docker build --target full --tag supersimplenet:full .
ARG PYTHON=3.11.13-slim-bookworm

FROM python:${PYTHON} AS builder
SHELL ["/bin/bash", "-o", "pipefail", "-c"]
# Versions of all packages, of the tools too, come from constraints.txt.
ENV PIP_NO_CACHE_DIR=1 PIP_DISABLE_PIP_VERSION_CHECK=1 PIP_CONSTRAINT=/build/constraints.txt
WORKDIR /build
COPY constraints.txt ./
# hadolint ignore=DL3013
RUN pip install build hatchling && python -m venv /opt/supersimplenet
COPY . .
RUN python -m build --no-isolation --wheel --outdir /wheels

FROM builder AS runtime-environment
RUN /opt/supersimplenet/bin/pip install "$(echo /wheels/*.whl)[onnx]" \
    && /opt/supersimplenet/bin/pip uninstall --yes setuptools pip

FROM builder AS full-environment
# For a CPU alone, without 4 GB of GPU libraries: --build-arg PIP_EXTRA_INDEX_URL=..., the index that docs/install.md names
ARG PIP_EXTRA_INDEX_URL
RUN /opt/supersimplenet/bin/pip install "$(echo /wheels/*.whl)[align,export,imagenet]" \
    && /opt/supersimplenet/bin/pip uninstall --yes pip

FROM python:${PYTHON} AS base
# Nothing is written outside /data and /tmp, so both images run with --read-only --tmpfs /tmp.
ENV PATH=/opt/supersimplenet/bin:$PATH HOME=/tmp PYTHONDONTWRITEBYTECODE=1 PYTHONUNBUFFERED=1
RUN groupadd --gid 10001 inspector && useradd --uid 10001 --gid 10001 --no-create-home --home-dir /tmp inspector \
    && install --directory --owner 10001 --group 10001 /data
WORKDIR /data
USER 10001:10001
ENTRYPOINT ["supersimplenet"]
CMD ["--help"]

FROM base AS full
COPY --from=full-environment /opt/supersimplenet /opt/supersimplenet

FROM base AS runtime
COPY --from=runtime-environment /opt/supersimplenet /opt/supersimplenet
