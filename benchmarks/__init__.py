"""What the workshop costs, measured: `make bench` writes docs/performance.md, its data and its plots. Ratios in one run, no timed tests."""
