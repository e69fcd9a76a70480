"""Measures what the course's tools cost: `make bench` writes docs/performance.md, its data and its plots."""
