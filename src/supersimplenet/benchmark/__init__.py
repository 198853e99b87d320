"""Measure speed on this machine, and accuracy on whole datasets with a comparison to the published figures."""
