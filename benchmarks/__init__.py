"""Scripts that make the numbers in results/. `python -m benchmarks.results` runs what is missing."""
