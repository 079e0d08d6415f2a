"""Read-only looks at models: distances, maps, predictions, and drawings of them."""
