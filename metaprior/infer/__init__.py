"""Building blocks of inference: gradient descent, Gaussians, SVGD, Laplace, Gaussian processes,
NUTS.
"""
