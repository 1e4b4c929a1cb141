"""What the benchmark scripts have in common. Not part of the installed package."""
