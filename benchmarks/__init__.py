"""What tracking costs, as ratios to a yardstick measured in the same run; see README.md."""
