# Stands in for ghcr.io/foundry-rs/foundry: the real anvil of the npm package, with the uid and home of the official
# image. Build context: a folder that holds anvil-amd64 and anvil-arm64.
FROM gcr.io/distroless/python3-debian12:nonroot
ARG TARGETARCH
COPY --chmod=755 anvil-${TARGETARCH} /usr/local/bin/anvil
USER root
RUN ["/usr/bin/python3", "-c", "import os; os.mkdir('/home/foundry'); os.chown('/home/foundry', 1000, 1000)"]
USER 1000:1000
ENV HOME=/home/foundry
ENTRYPOINT ["anvil"]
