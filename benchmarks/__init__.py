"""What metaprior costs, beside peers in PyTorch: `python -m benchmarks`; docs/performance.md."""
