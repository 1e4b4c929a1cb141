"""Search for the best configuration within a latency interval, on an Optuna study."""
