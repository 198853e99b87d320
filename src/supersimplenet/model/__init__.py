"""The network: backbone, resampling, synthetic anomalies, heads, losses and the published recipe."""
