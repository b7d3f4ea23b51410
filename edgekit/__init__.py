"""edgekit: deploy neural networks to small boards, verified bit for bit and measured there."""

__version__ = "0.1.0"
