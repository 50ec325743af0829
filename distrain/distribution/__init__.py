"""How replicas become one model: `choose.choose` picks the distribution; importing this package loads no TensorFlow."""
