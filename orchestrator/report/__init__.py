"""What a run shows of itself: the report, the reader of trajectories, and the colours they share."""
