"""What Holdfast costs, measured on this machine. `make bench` runs all; see docs/benchmarks.md for how to read it."""
