# Holds the binary and a shell for health checks, nothing else. TLS roots are compiled in.
FROM rust:1.95-slim-bookworm AS build
WORKDIR /build

# The dependencies alone, for an empty program: this layer lasts until Cargo.toml or Cargo.lock changes.
COPY Cargo.toml Cargo.lock ./
RUN mkdir -p src tests/suite bench benches \
 && echo 'fn main() {}' | tee src/main.rs bench/floor.rs bench/bare_publish.rs benches/hot_path.rs > tests/suite/main.rs \
 && touch src/lib.rs \
 && cargo build --release --locked

COPY . .
# The sources may be older than the empty ones above; cargo goes by the time.
RUN touch src/main.rs src/lib.rs \
 && cargo build --release --locked

FROM debian:bookworm-slim
COPY --from=build /build/target/release/whimbrel /usr/local/bin/whimbrel
# A number, so that an orchestrator can see that it is not root.
USER 65532:65532
EXPOSE 8080
# Begins the drain: unready first, then clients are let go. Give it longer than both settings together.
STOPSIGNAL SIGTERM
ENTRYPOINT ["whimbrel"]
CMD ["serve"]
