"""Reports to Weights & Biases: runs, synchronization, and the dashboard."""
