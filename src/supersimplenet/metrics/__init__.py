"""Metrics, intervals and thresholds: pure functions without torch."""
