# The one image of Whimbrel: the operator and the workers. The base is an argument: any image with Python 3.11 or newer,
# its venv module and CA certificates.
#   docker build -t whimbrel:dev .
#   buildah build --build-arg BASE=localhost/my-python:3.13 -t whimbrel:dev .
# With --timestamp 0 (buildah) or SOURCE_DATE_EPOCH=0 (BuildKit) two builds on one base give one image, bit by bit.
ARG BASE=docker.io/library/python:3.13-slim

FROM ${BASE} AS build
ENV PIP_NO_CACHE_DIR=1 PIP_DISABLE_PIP_VERSION_CHECK=1
RUN python3 -m venv /opt/whimbrel
# The dependencies first: a change of our own code does not install them anew.
COPY locks/image.txt /src/locks/image.txt
RUN /opt/whimbrel/bin/pip install --require-hashes --only-binary :all: --no-compile -r /src/locks/image.txt
COPY pyproject.toml README.md LICENSE /src/
COPY api /src/api
COPY operator /src/operator
COPY worker /src/worker
# Our packages need no build step. They are copied, so that the image needs no build tools and holds no test bed.
RUN site=$(/opt/whimbrel/bin/python -c 'import sysconfig; print(sysconfig.get_path("purelib"))') \
 && cp -r /src/api/whimbrel_api /src/operator/whimbrel_operator /src/worker/whimbrel_worker "$site" \
 && /opt/whimbrel/bin/pip uninstall --yes --quiet pip \
 && find /opt/whimbrel -depth -type d \( -name tests -o -name __pycache__ \) -exec rm -rf {} + \
 && /opt/whimbrel/bin/python -m compileall -q --invalidation-mode unchecked-hash "$site"

FROM ${BASE}
ARG REVISION=unknown
LABEL org.opencontainers.image.title="Whimbrel" \
      org.opencontainers.image.description="Moves live databases, described as Kubernetes resources" \
      org.opencontainers.image.licenses="Apache-2.0" \
      org.opencontainers.image.revision="${REVISION}"
COPY --from=build /opt/whimbrel /opt/whimbrel
COPY LICENSE /opt/whimbrel/LICENSE
ENV PATH=/opt/whimbrel/bin:/usr/local/sbin:/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin \
    PYTHONUNBUFFERED=1 PYTHONDONTWRITEBYTECODE=1 HOME=/tmp
# HOME: a client of Kubernetes asks for it when it is imported, and a number without a name has none.
# Nobody's own number: the pods demand a user that is not root by number, not by name.
USER 65532:65532
WORKDIR /tmp
CMD ["python", "-m", "whimbrel_operator"]
