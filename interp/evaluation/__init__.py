"""What a trained model gets right: counts, partial credit, reliability, rollout, run cards, longer machines."""
