# The one image of Whimbrel: the operator and the workers. What it holds, and how to build and check it: docs/image.md.
#   docker build -t whimbrel:dev .
#   buildah build --build-arg BASE=localhost/my-python:3.13 -t whimbrel:dev .
# The base is any image with Python 3.11 or newer, its venv module and CA certificates, and without a compiler.
# With --timestamp 0 (buildah) or SOURCE_DATE_EPOCH=0 (BuildKit) two builds on one base give one image, bit by bit.
ARG BASE=docker.io/library/python:3.13-slim

# The packages, by a lock with hashes, in an environment of their own.
FROM ${BASE} AS packages
ENV PIP_NO_CACHE_DIR=1 PIP_DISABLE_PIP_VERSION_CHECK=1
RUN python3 -m venv /opt/whimbrel
COPY locks/image.txt /src/locks/image.txt
RUN /opt/whimbrel/bin/pip install --require-hashes --only-binary :all: --no-compile --report /src/installed.json \
      -r /src/locks/image.txt
COPY image/slim.py /src/image/slim.py
# A file's time may change on its way into the image, and nobody can write there later: compiled for good.
RUN /opt/whimbrel/bin/pip uninstall --yes --quiet pip \
 && /opt/whimbrel/bin/python /src/image/slim.py /opt/whimbrel \
 && /opt/whimbrel/bin/python -m compileall -q --invalidation-mode unchecked-hash /opt/whimbrel/lib

# Our own packages need no build step. They are a layer of their own: a release that changes no dependency is small.
FROM packages AS own
COPY api/whimbrel_api /src/own/whimbrel_api
COPY operator/whimbrel_operator /src/own/whimbrel_operator
COPY worker/whimbrel_worker /src/own/whimbrel_worker
RUN site=$(/opt/whimbrel/bin/python -c 'import sysconfig; print(sysconfig.get_path("purelib"))') \
 && mkdir -p "/own$site" && cp -r /src/own/. "/own$site" \
 && /opt/whimbrel/bin/python -m compileall -q --invalidation-mode unchecked-hash -s /own -p / "/own$site"
COPY LICENSE /own/opt/whimbrel/LICENSE

# The base without installers, manuals and set-user bits.
FROM ${BASE} AS bare
COPY image/bare.py /src/image/bare.py
RUN python3 /src/image/bare.py && rm -r /src

# What was left is all that is needed; and the bill of materials of just that.
FROM bare AS checked
COPY --from=packages /opt/whimbrel /opt/whimbrel
COPY --from=own /own /
COPY --from=packages /src/installed.json /src/installed.json
COPY pyproject.toml /src/pyproject.toml
COPY image /src/image
WORKDIR /src
RUN /opt/whimbrel/bin/python -m image.whole \
 && mkdir -p /bill/opt/whimbrel \
 && /opt/whimbrel/bin/python -m image.sbom --project pyproject.toml --installed installed.json \
      > /bill/opt/whimbrel/sbom.cdx.json

# From scratch, so that what was taken out of the base is in no layer, and no setting of the base is inherited.
FROM scratch
ARG BASE
ARG VERSION=0.1.0
ARG REVISION=unknown
ARG SOURCE=
LABEL org.opencontainers.image.title="Whimbrel" \
      org.opencontainers.image.description="Moves live databases, described as Kubernetes resources" \
      org.opencontainers.image.licenses="Apache-2.0" \
      org.opencontainers.image.version="${VERSION}" \
      org.opencontainers.image.revision="${REVISION}" \
      org.opencontainers.image.source="${SOURCE}" \
      org.opencontainers.image.base.name="${BASE}"
COPY --from=bare / /
COPY --from=packages /opt/whimbrel /opt/whimbrel
COPY --from=own /own /
COPY --from=checked /bill /
# With PYTHONSAFEPATH nothing is imported from the working directory, the one place that can be written.
ENV PATH=/opt/whimbrel/bin:/usr/local/sbin:/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin \
    LANG=C.UTF-8 PYTHONUNBUFFERED=1 PYTHONDONTWRITEBYTECODE=1 PYTHONSAFEPATH=1
# Nobody's own number: the pods demand a user that is not root by number, not by name.
USER 65532:65532
WORKDIR /tmp
CMD ["python", "-m", "whimbrel_operator"]
