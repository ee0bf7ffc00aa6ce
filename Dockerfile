# A static program and nothing else: no shell, no libraries, no root. TLS roots are compiled in.
#   docker build -t whimbrel --build-arg WHIMBREL_COMMIT=$(git rev-parse HEAD) .
# Alpine's Rust builds for musl, on x86_64 and aarch64 alike.
FROM rust:1.95-alpine AS build
RUN apk add --no-cache musl-dev gcc
WORKDIR /build

# The dependencies alone, for an empty program: this layer lasts until Cargo.toml or Cargo.lock changes.
COPY Cargo.toml Cargo.lock build.rs ./
RUN mkdir -p src tests/suite bench benches \
 && echo 'fn main() {}' | tee src/main.rs bench/floor.rs bench/bare_publish.rs benches/hot_path.rs > tests/suite/main.rs \
 && touch src/lib.rs \
 && cargo build --release --locked

COPY . .
ARG WHIMBREL_COMMIT=""
# The sources may be older than the empty ones above; cargo goes by the time.
RUN touch src/main.rs src/lib.rs \
 && cargo build --release --locked \
 && strip target/release/whimbrel

FROM scratch
COPY --from=build /build/target/release/whimbrel /usr/local/bin/whimbrel
# A number, so that an orchestrator can see that it is not root.
USER 65532:65532
EXPOSE 8080
# Asks the first address of WHIMBREL_LISTEN.
HEALTHCHECK --interval=10s --timeout=5s --start-period=15s --retries=3 CMD ["/usr/local/bin/whimbrel", "health"]
# Begins the drain: unready first, then clients are let go. Give it 15 s longer than both settings together.
STOPSIGNAL SIGTERM
ENTRYPOINT ["/usr/local/bin/whimbrel"]
CMD ["serve"]
