# One line each: `cargo xtask` is the truth.

# All tests, after setting up what they need
test:
    cargo xtask test

# Format, lints, licences, direction of dependencies
lint:
    cargo xtask lint

# What CI runs
verify: lint test

# A whole mesh on this machine
demo:
    cargo run --release -- demo
