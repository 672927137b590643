# The worker: two images of the same stages. `make images` builds both; by hand, from the repository's root:
#
#   docker build -f docker/worker.Dockerfile -t REGISTRY/cosmos-worker:TAG .
#   docker build -f docker/worker.Dockerfile -t REGISTRY/cosmos-worker-cpu:TAG --target cpu \
#     --build-arg BASE_IMAGE=python:3.12-slim --build-arg SYSTEM_PACKAGES= --build-arg EXTRAS=worker --build-arg LEFT_OUT=triton .
#
# The first is for jobs on NVIDIA GPUs. The second, for jobs without, has the example's models and videos. Behind a proxy
# or a mirror, give the certificates and uv's configuration as build secrets; no layer keeps them:
#   --secret id=ca-bundle,src=/etc/ssl/certs/ca-certificates.crt --secret id=uv-config,src=uv.toml
#
# torch and its packages bring the CUDA libraries; the base image brings Ubuntu and asks the node for its driver. Both
# base images must have the same system, and so the same Python. Our code runs without transformer-engine and apex: they
# are for experiments that ask for them, need NVIDIA's compiler and most of an hour, and are added with
#   --target cuda-compiled      # and one of them only: --build-arg WITH_APEX=0 or WITH_TRANSFORMER_ENGINE=0
#
# The project's tests build this file on a plain Debian as BASE_IMAGE, and run jobs on the CPU with all its packages. The
# rest needs images from NVIDIA's registry, a compiler for CUDA and a GPU, and has not been run.
ARG BASE_IMAGE=nvidia/cuda:13.0.2-base-ubuntu24.04
ARG BUILD_IMAGE=nvidia/cuda:13.0.2-cudnn-devel-ubuntu24.04

# gcc, g++ and Python's headers stay: the network's blocks are compiled when they first run (acceleration.compile), and
# triton compiles the launchers of its kernels. The image for CPUs has no compiler: its blocks run as they are. Without the InfiniBand
# libraries NCCL would take TCP between nodes, and not say so.
FROM ${BASE_IMAGE} AS python
ARG SYSTEM_PACKAGES="ca-certificates g++ gcc ibverbs-providers libc6-dev python3 python3-dev python3-venv"
RUN if [ -n "${SYSTEM_PACKAGES}" ]; then \
      apt-get update && apt-get install -y --no-install-recommends ${SYSTEM_PACKAGES} && rm -rf /var/lib/apt/lists/*; \
    fi

# What to install, apart from pyproject.toml, so that only a change of packages makes the packages' layer anew.
FROM python AS requirements
WORKDIR /requirements
COPY pyproject.toml docker/constraints.txt docker/requirements.py ./
ARG EXTRAS="worker torchao guardrails wandb mlflow"
RUN python3 requirements.py ${EXTRAS}

# The installer and the build tool. Neither is in the final image.
FROM python AS tools
COPY --from=requirements /requirements/uv.txt /requirements/constraints.txt /requirements/
RUN --mount=type=secret,id=ca-bundle --mount=type=secret,id=uv-config \
    if [ -e /run/secrets/ca-bundle ]; then export SSL_CERT_FILE=/run/secrets/ca-bundle PIP_CERT=/run/secrets/ca-bundle; fi; \
    if [ -e /run/secrets/uv-config ]; then export UV_CONFIG_FILE=/run/secrets/uv-config; fi; \
    python3 -m venv /tools \
 && /tools/bin/pip install --no-cache-dir --disable-pip-version-check --require-hashes -r /requirements/uv.txt \
 && /tools/bin/uv pip install --no-cache --python /tools -c /requirements/constraints.txt hatchling

# The packages: the large layer, made in place because copying it from another stage would double the work. PyAV brings
# its own ffmpeg. LEFT_OUT names one package that nothing needs without a GPU.
FROM python AS packages
ARG LEFT_OUT=
COPY --from=requirements /requirements/packages.txt /requirements/uv.txt /requirements/constraints.txt /requirements/
RUN --mount=type=secret,id=ca-bundle --mount=type=secret,id=uv-config \
    if [ -e /run/secrets/ca-bundle ]; then export SSL_CERT_FILE=/run/secrets/ca-bundle PIP_CERT=/run/secrets/ca-bundle; fi; \
    if [ -e /run/secrets/uv-config ]; then export UV_CONFIG_FILE=/run/secrets/uv-config; fi; \
    mkdir /build && echo "${LEFT_OUT}" > /build/left-out.txt && python3 -m venv /build/tools \
 && /build/tools/bin/pip install --no-cache-dir --disable-pip-version-check --require-hashes -r /requirements/uv.txt \
 && python3 -m venv --without-pip /opt/cosmos \
 && /build/tools/bin/uv pip install --no-cache --compile-bytecode --python /opt/cosmos -c /requirements/constraints.txt \
      --excludes /build/left-out.txt -r /requirements/packages.txt \
 && rm -r /build \
 && cd /opt/cosmos/lib/python3*/site-packages \
 && echo /opt/cosmos-code > cosmos-code.pth \
 && echo /opt/cosmos-extensions > cosmos-extensions.pth \
 && /opt/cosmos/bin/python -B -c 'import av, safetensors, torch, transformers'

# Our code, in a folder of its own.
FROM tools AS code
WORKDIR /source
COPY pyproject.toml README.md LICENSE NOTICE ./
COPY operator operator
COPY cosmos_worker cosmos_worker
RUN python3 -m venv --without-pip /opt/cosmos \
 && /tools/bin/python -m hatchling build -t wheel -d /wheels \
 && /tools/bin/uv pip install --offline --no-cache --no-deps --python /opt/cosmos --target /opt/cosmos-code /wheels/*.whl \
 && /opt/cosmos/bin/python -m compileall -q --invalidation-mode unchecked-hash /opt/cosmos-code

# What both images have.
FROM packages AS worker
COPY --from=code /opt/cosmos-code /opt/cosmos-code
COPY LICENSE NOTICE /usr/share/doc/cosmos/
ENV PATH=/opt/cosmos-code/bin:/opt/cosmos/bin:/usr/local/nvidia/bin:/usr/local/bin:/usr/bin:/bin \
    HOME=/tmp \
    PYTHONDONTWRITEBYTECODE=1 \
    PYTHONUNBUFFERED=1
ARG VERSION=0.1.0
ARG REVISION=unknown
LABEL org.opencontainers.image.licenses="Apache-2.0" \
      org.opencontainers.image.version="${VERSION}" \
      org.opencontainers.image.revision="${REVISION}"
# Any user id works: everything is readable by all, and nothing is written but in /tmp and on mounted volumes.
USER 1000:0
WORKDIR /tmp
ENTRYPOINT ["cosmos-worker"]

FROM worker AS cpu
COPY examples/pushing /opt/cosmos/examples/pushing
LABEL org.opencontainers.image.title="cosmos-worker-cpu" \
      org.opencontainers.image.description="Stages of a PostTrainingJob on CPUs, with a tiny example"

# Compiled against the torch above, into /extensions. What transformer-engine needs besides has no version in
# constraints.txt: the newest is taken.
FROM ${BUILD_IMAGE} AS extensions
ARG WITH_TRANSFORMER_ENGINE=1
ARG TRANSFORMER_ENGINE_VERSION=2.20.2
ARG WITH_APEX=1
ARG APEX_REPOSITORY=https://github.com/NVIDIA/apex
ARG APEX_COMMIT=6424da3b4faa6c8f062da4a48c424fff3f02d42d
# Compute capabilities to compile for: 8.0 A100, 9.0 H100 and H200, 10.0 B200.
ARG TORCH_CUDA_ARCH_LIST="8.0;9.0;10.0"
ARG MAX_JOBS=4
RUN apt-get update \
 && apt-get install -y --no-install-recommends build-essential ca-certificates git ninja-build python3 python3-dev python3-venv \
 && rm -rf /var/lib/apt/lists/*
COPY --from=packages /opt/cosmos /opt/cosmos
COPY --from=tools /tools /tools
COPY --from=requirements /requirements/constraints.txt /requirements/
WORKDIR /build
RUN --mount=type=secret,id=ca-bundle --mount=type=secret,id=uv-config \
    if [ -e /run/secrets/ca-bundle ]; then export SSL_CERT_FILE=/run/secrets/ca-bundle PIP_CERT=/run/secrets/ca-bundle GIT_SSL_CAINFO=/run/secrets/ca-bundle; fi; \
    if [ -e /run/secrets/uv-config ]; then export UV_CONFIG_FILE=/run/secrets/uv-config; fi; \
    export TORCH_CUDA_ARCH_LIST MAX_JOBS NVTE_FRAMEWORK=pytorch APEX_CPP_EXT=1 APEX_CUDA_EXT=1; \
    set -e; mkdir /extensions; \
    /tools/bin/uv pip install --no-cache --python /opt/cosmos -c /requirements/constraints.txt packaging pybind11 setuptools wheel; \
    if [ "${WITH_TRANSFORMER_ENGINE}" = 1 ]; then \
      /tools/bin/uv pip install --no-cache --python /opt/cosmos --target /extensions --no-build-isolation \
        --no-deps "transformer-engine==${TRANSFORMER_ENGINE_VERSION}" "transformer-engine-cu13==${TRANSFORMER_ENGINE_VERSION}" \
        "transformer-engine-torch==${TRANSFORMER_ENGINE_VERSION}"; \
      /tools/bin/uv pip install --no-cache --python /opt/cosmos --target /extensions --no-deps \
        einops ml-dtypes onnx onnx-ir onnxscript protobuf; \
    fi; \
    if [ "${WITH_APEX}" = 1 ]; then \
      git init --quiet apex && git -C apex fetch --quiet --depth=1 "${APEX_REPOSITORY}" "${APEX_COMMIT}" \
      && git -C apex checkout --quiet FETCH_HEAD; \
      /tools/bin/uv pip install --no-cache --python /opt/cosmos --target /extensions --no-build-isolation --no-deps ./apex; \
    fi

FROM worker AS cuda-compiled
COPY --from=extensions /extensions /opt/cosmos-extensions
ENV NVIDIA_VISIBLE_DEVICES=all \
    NVIDIA_DRIVER_CAPABILITIES=compute,utility
LABEL org.opencontainers.image.title="cosmos-worker" \
      org.opencontainers.image.description="Stages of a PostTrainingJob on NVIDIA GPUs, with transformer-engine and apex"

FROM worker AS cuda
ENV NVIDIA_VISIBLE_DEVICES=all \
    NVIDIA_DRIVER_CAPABILITIES=compute,utility
LABEL org.opencontainers.image.title="cosmos-worker" \
      org.opencontainers.image.description="Stages of a PostTrainingJob on NVIDIA GPUs"
