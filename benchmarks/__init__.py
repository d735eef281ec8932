"""What metaprior costs, beside peers written in PyTorch: `python -m benchmarks`. See
docs/performance.md.
"""
