"""Evaluate models on datasets: results, thresholds, comparison of two models, gate."""
