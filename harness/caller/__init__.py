"""One phone: a synthetic caller on aiortc."""
