"""Native code of our own for CPUs, compiled where it runs: see :mod:`sparsevit.ops.native.swin`."""
