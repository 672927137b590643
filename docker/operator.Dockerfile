# The operator. From the repository's root:
#
#   docker build -f docker/operator.Dockerfile -t REGISTRY/cosmos-operator:TAG .
#
# Behind a proxy or a mirror, give the certificates and uv's configuration as build secrets; no layer keeps them:
#   --secret id=ca-bundle,src=/etc/ssl/certs/ca-certificates.crt --secret id=uv-config,src=uv.toml
ARG BASE_IMAGE=python:3.12-slim

# What to install, apart from pyproject.toml, so that only a change of packages makes the packages' layer anew.
FROM ${BASE_IMAGE} AS requirements
WORKDIR /requirements
COPY pyproject.toml docker/constraints.txt docker/requirements.py ./
RUN python3 requirements.py operator view

# The installer and the build tool. Neither is in the final image.
FROM ${BASE_IMAGE} AS tools
COPY --from=requirements /requirements/uv.txt /requirements/constraints.txt /requirements/
RUN --mount=type=secret,id=ca-bundle --mount=type=secret,id=uv-config \
    if [ -e /run/secrets/ca-bundle ]; then export SSL_CERT_FILE=/run/secrets/ca-bundle PIP_CERT=/run/secrets/ca-bundle; fi; \
    if [ -e /run/secrets/uv-config ]; then export UV_CONFIG_FILE=/run/secrets/uv-config; fi; \
    python3 -m venv /tools \
 && /tools/bin/pip install --no-cache-dir --disable-pip-version-check --require-hashes -r /requirements/uv.txt \
 && /tools/bin/uv pip install --no-cache --python /tools -c /requirements/constraints.txt hatchling

# The packages. Of the Kubernetes client the operator uses the asynchronous transport with plain dictionaries: the
# generated classes for every kind, synchronous and asynchronous, are most of its size and are left out.
FROM tools AS packages
COPY --from=requirements /requirements/packages.txt /requirements/
RUN --mount=type=secret,id=ca-bundle --mount=type=secret,id=uv-config \
    if [ -e /run/secrets/ca-bundle ]; then export SSL_CERT_FILE=/run/secrets/ca-bundle; fi; \
    if [ -e /run/secrets/uv-config ]; then export UV_CONFIG_FILE=/run/secrets/uv-config; fi; \
    python3 -m venv --without-pip /opt/cosmos \
 && /tools/bin/uv pip install --no-cache --python /opt/cosmos -c /requirements/constraints.txt -r /requirements/packages.txt \
 && cd /opt/cosmos/lib/python3*/site-packages \
 && find kubernetes/client/api kubernetes/client/models kubernetes/aio/client/api kubernetes/aio/client/models \
      -name '*.py' ! -name __init__.py -delete \
 && find . -depth -type d \( -name __pycache__ -o -name tests -o -name test \) -exec rm -r {} + \
 && echo /opt/cosmos-code > cosmos-code.pth \
 && /opt/cosmos/bin/python -c 'import aiohttp, jinja2, kopf, prometheus_client, pydantic, starlette, uvicorn, yaml; from kubernetes.aio import client; client.ApiClient' \
 && /opt/cosmos/bin/python -m compileall -q -f --invalidation-mode unchecked-hash .

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

FROM ${BASE_IMAGE}
COPY --from=packages /opt/cosmos /opt/cosmos
COPY --from=code /opt/cosmos-code /opt/cosmos-code
COPY LICENSE NOTICE /usr/share/doc/cosmos/
ENV PATH=/opt/cosmos-code/bin:/opt/cosmos/bin:/usr/local/bin:/usr/bin:/bin \
    HOME=/tmp \
    PYTHONDONTWRITEBYTECODE=1 \
    PYTHONUNBUFFERED=1
ARG VERSION=0.1.0
ARG REVISION=unknown
LABEL org.opencontainers.image.title="cosmos-operator" \
      org.opencontainers.image.description="Kubernetes operator that post-trains Cosmos-Predict1 Video2World models" \
      org.opencontainers.image.licenses="Apache-2.0" \
      org.opencontainers.image.version="${VERSION}" \
      org.opencontainers.image.revision="${REVISION}"
# Any user id works: everything is readable by all, and nothing is written but in /tmp.
USER 1000:0
WORKDIR /tmp
ENTRYPOINT ["cosmos-operator"]
