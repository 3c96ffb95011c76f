"""What a trained model gets right: counts, partial credit, calibration, rollout, run cards, longer machines."""
