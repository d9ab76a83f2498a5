"""What a CUDA machine is asked in ten minutes: `python -m benchmarks.gpu`."""
