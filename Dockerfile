# The service as a container: no root, no write to its own file system but /data. Config is mounted at /etc/verdict-relay.
FROM rust:1.95.0-slim-bookworm AS build
# hadolint ignore=DL3008
RUN apt-get update \
  && apt-get install -y --no-install-recommends g++ make pkg-config libssl-dev zlib1g-dev \
  && rm -rf /var/lib/apt/lists/*
WORKDIR /source
COPY . .
RUN --mount=type=cache,target=/usr/local/cargo/registry --mount=type=cache,target=/source/target \
  cargo build --release --locked --bin verdict-relay \
  && cp target/release/verdict-relay /usr/local/bin/ \
  && mkdir /data

FROM debian:12.15-slim
# What librdkafka is linked with, as of the build: security fixes come with a new build, so no versions here.
# hadolint ignore=DL3008
RUN apt-get update \
  && apt-get install -y --no-install-recommends ca-certificates libssl3 zlib1g \
  && rm -rf /var/lib/apt/lists/*
COPY --from=build /usr/local/bin/verdict-relay /usr/local/bin/verdict-relay
# A new volume takes its owner from here. The store refuses a folder that others can read.
COPY --from=build --chown=65532:65532 --chmod=0700 /data /data
USER 65532:65532
WORKDIR /etc/verdict-relay
VOLUME /data
# 8080: webhooks, to be published. 8081: state and metrics, for the inside only.
EXPOSE 8080 8081
# Nothing here can ask /livez: there is no curl, and the binary has no such command. Kubernetes and load balancers ask by HTTP.
HEALTHCHECK NONE
# The service drains on SIGTERM.
STOPSIGNAL SIGTERM
ENTRYPOINT ["verdict-relay"]
CMD ["--config", "/etc/verdict-relay/verdict-relay.toml", "serve"]
